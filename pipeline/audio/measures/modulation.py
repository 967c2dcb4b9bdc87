"""How much speech moves: its spectrum from frame to frame, and its loudness over time."""

import numpy as np

from pipeline.audio.measures.spectra import checked_audio, is_silent, log_mel_spectra

FLUX_FRAMES = 2  # 20 ms
ENVELOPE_SECONDS = 0.010


def mel_flux(audio: np.ndarray, sample_rate: int) -> float:
    """Return the change of the spectrum's shape over 20 ms, in dB, of one utterance, audio [S].

    Log-mel levels (see `spectra.log_mel_spectra`) less each frame's mean over the bands, so that a change of loudness
    alone does not count; the RMS over the bands of the difference between frames 20 ms apart, averaged over the pairs
    of which both are active. A steady tone scores 0; random tokens, decoded, score far above speech. NaN when no such
    pair exists.

    Raises:
        ValueError: the audio cannot be measured (see `spectra.checked_audio`).
    """
    levels, active = log_mel_spectra(audio, sample_rate)
    shapes = levels - levels.mean(axis=1, keepdims=True)
    changes = np.sqrt(np.mean((shapes[FLUX_FRAMES:] - shapes[:-FLUX_FRAMES]) ** 2, axis=1))
    both_active = active[FLUX_FRAMES:] & active[:-FLUX_FRAMES]
    return float(changes[both_active].mean()) if both_active.any() else float("nan")


def modulation_depth(audio: np.ndarray, sample_rate: int) -> float:
    """Return the depth of the loudness envelope's modulation of one utterance, audio [S].

    The envelope is the RMS level of successive blocks of 10 ms; the depth is its standard deviation over its mean.
    Steady sounds score near 0; speech, with its syllables and pauses, near 1. NaN for silent audio, or audio shorter
    than a block.

    Raises:
        ValueError: the audio cannot be measured (see `spectra.checked_audio`).
    """
    audio = checked_audio(audio, sample_rate)
    block_length = round(ENVELOPE_SECONDS * sample_rate)
    n_blocks = len(audio) // block_length
    blocks = audio[: n_blocks * block_length].reshape(n_blocks, block_length)
    if is_silent(blocks.ravel()):
        return float("nan")
    envelope = np.sqrt(np.mean(blocks**2, axis=1))
    return float(envelope.std() / envelope.mean())
