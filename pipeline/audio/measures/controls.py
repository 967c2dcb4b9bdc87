"""Signals that are not speech, for the measures to be held against."""

from collections.abc import Callable

import numpy as np

LEVEL_RMS = 10 ** (-23 / 20)  # of full scale, the level speech is brought to
NOTE_SECONDS = 0.2
BEEPS_PER_SECOND = 3
LOWEST_NOTE = 220.0  # Hz


def control_signals(kind: str, n: int, seconds: float, sample_rate: int, seed: int) -> list[np.ndarray]:
    """Return `n` utterances of a control signal, float32 [S] each, at an RMS level of -23 dB below full scale.

    Utterance i depends only on the other arguments and i, not on `n`.

    Args:
        kind: "tone", a steady sine; "beeps", one switched on and off three times a second; "melody", five random notes
            a second; "white_noise"; or "pink_noise", whose power falls by 3 dB an octave.
        n: how many.
        seconds: the length of each.
        sample_rate: samples a second.
        seed: of frequencies and noise.

    Raises:
        ValueError: the kind is unknown.
    """
    if kind not in CONTROL_KINDS:
        raise ValueError(f"There is no control signal {kind!r}; choose one of {', '.join(CONTROL_KINDS)}.")
    n_samples = round(seconds * sample_rate)
    signals = (CONTROL_KINDS[kind](n_samples, sample_rate, np.random.default_rng((seed, i))) for i in range(n))
    return [_levelled(signal).astype(np.float32) for signal in signals]


def _levelled(signal: np.ndarray) -> np.ndarray:
    return signal * (LEVEL_RMS / np.sqrt(np.mean(signal**2))) if signal.any() else signal


def _random_sine(n_samples: int, sample_rate: int, generator: np.random.Generator) -> np.ndarray:
    """A sine between 220 Hz and 1760 Hz, evenly on a logarithmic scale."""
    frequency = LOWEST_NOTE * 2 ** generator.uniform(0, 3)
    return np.sin(2 * np.pi * frequency * np.arange(n_samples) / sample_rate)


def _beeps(n_samples: int, sample_rate: int, generator: np.random.Generator) -> np.ndarray:
    cycle = np.arange(n_samples) * BEEPS_PER_SECOND / sample_rate % 1
    return _random_sine(n_samples, sample_rate, generator) * (cycle < 0.5)


def _melody(n_samples: int, sample_rate: int, generator: np.random.Generator) -> np.ndarray:
    """Notes of two octaves of the equally tempered scale, each swelling and fading under a Hann envelope."""
    note_length = round(NOTE_SECONDS * sample_rate)
    notes = generator.integers(0, 25, size=-(-n_samples // note_length))
    frequencies = LOWEST_NOTE * 2 ** (notes / 12)
    time = np.arange(note_length) / sample_rate
    sines = np.sin(2 * np.pi * frequencies[:, None] * time) * np.hanning(note_length)
    return sines.ravel()[:n_samples]


def _white_noise(n_samples: int, sample_rate: int, generator: np.random.Generator) -> np.ndarray:
    return generator.standard_normal(n_samples)


def _pink_noise(n_samples: int, sample_rate: int, generator: np.random.Generator) -> np.ndarray:
    spectrum = np.fft.rfft(generator.standard_normal(n_samples))
    spectrum[0] = 0
    spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))
    return np.fft.irfft(spectrum, n_samples)


CONTROL_KINDS: dict[str, Callable[[int, int, np.random.Generator], np.ndarray]] = {
    "tone": _random_sine,
    "beeps": _beeps,
    "melody": _melody,
    "white_noise": _white_noise,
    "pink_noise": _pink_noise,
}
