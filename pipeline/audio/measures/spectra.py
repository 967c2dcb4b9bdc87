"""Short-time spectra shared by the measures, in float64."""

from functools import lru_cache

import numpy as np
import torchaudio

HIGHEST_FREQUENCY = 3800.0  # Hz; no measure looks higher, so that none depends on the sample rate
SILENCE_RMS = 1e-4  # of full scale: -80 dB

LOG_MEL_WINDOW_SECONDS = 0.032
LOG_MEL_HOP_SECONDS = 0.010
N_MELS = 40
LOWEST_MEL_FREQUENCY = 60.0  # Hz
LOG_MEL_RANGE_DB = 60.0
ACTIVE_RANGE_DB = 40.0


def checked_audio(audio: np.ndarray, sample_rate: int) -> np.ndarray:
    """Return mono floating-point audio [S] as float64.

    Raises:
        ValueError: it is not one-dimensional, not floating point, holds NaN or infinity, or was sampled too slowly to
            hold the measures' band.
    """
    audio = np.asarray(audio)
    if audio.ndim != 1 or not np.issubdtype(audio.dtype, np.floating):
        raise ValueError(
            f"Measures take mono floating-point audio of shape [samples], not {audio.dtype} of shape "
            f"{list(audio.shape)}; mix the channels down and scale integers to [-1, 1] first."
        )
    if sample_rate < 2 * HIGHEST_FREQUENCY:
        raise ValueError(
            f"Measures look at frequencies up to {HIGHEST_FREQUENCY:.0f} Hz, which {sample_rate} samples a second do "
            f"not hold; use audio of at least {2 * HIGHEST_FREQUENCY:.0f}."
        )
    if not np.isfinite(audio).all():
        raise ValueError("The audio holds NaN or infinity; leave it out or repair it before measuring.")
    return audio.astype(np.float64)


def is_silent(audio: np.ndarray) -> bool:
    """Whether audio [S] is empty or its RMS level, a constant offset aside, lies below `SILENCE_RMS`."""
    # A codec fed one token over and over can answer with a constant: inaudible, however large.
    return len(audio) == 0 or bool(audio.std() < SILENCE_RMS)


def power_spectra(audio: np.ndarray, n_fft: int, hop_length: int) -> np.ndarray:
    """Return |STFT|² [F, n_fft // 2 + 1] under a periodic Hann window, of the frames that fit into audio [S]."""
    if len(audio) < n_fft:
        return np.zeros((0, n_fft // 2 + 1))
    window = 0.5 - 0.5 * np.cos(2 * np.pi / n_fft * np.arange(n_fft))
    frames = np.lib.stride_tricks.sliding_window_view(audio, n_fft)[::hop_length]
    return np.abs(np.fft.rfft(frames * window, axis=1)) ** 2


def log_mel_spectra(audio: np.ndarray, sample_rate: int) -> tuple[np.ndarray, np.ndarray]:
    """Return log-mel levels [F, N_MELS] and which frames [F] are active.

    Windows of 32 ms every 10 ms; power in 40 bands of Slaney's mel scale and unit area between 60 and 3800 Hz, in dB
    relative to the loudest band of the utterance, cut off at -60 dB. A frame is active when its loudest band lies
    within 40 dB of the utterance's. Silent audio, or audio shorter than a window, has no frames.

    Raises:
        ValueError: the audio cannot be measured (see `checked_audio`).
    """
    audio = checked_audio(audio, sample_rate)
    n_fft = round(LOG_MEL_WINDOW_SECONDS * sample_rate)
    power = power_spectra(audio, n_fft, round(LOG_MEL_HOP_SECONDS * sample_rate)) @ mel_filterbank(sample_rate, n_fft)
    if is_silent(audio) or power.max(initial=0.0) <= 0:
        return np.zeros((0, N_MELS)), np.zeros(0, dtype=bool)
    levels = 10 * np.log10(np.maximum(power / power.max(), 10 ** (-LOG_MEL_RANGE_DB / 10)))
    return levels, levels.max(axis=1) > -ACTIVE_RANGE_DB


@lru_cache
def mel_filterbank(sample_rate: int, n_fft: int) -> np.ndarray:
    """Return the triangular filters [n_fft // 2 + 1, N_MELS] of `log_mel_spectra`."""
    filters = torchaudio.functional.melscale_fbanks(
        n_fft // 2 + 1, LOWEST_MEL_FREQUENCY, HIGHEST_FREQUENCY, N_MELS, sample_rate, norm="slaney", mel_scale="slaney"
    )
    return filters.double().numpy()
