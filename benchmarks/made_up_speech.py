"""Recordings that nobody made, as many hours as a benchmark wants: no two alike, and of speech's levels and pauses."""

from collections.abc import Iterator

import numpy as np

SHORTEST, LONGEST = 3.0, 17.0
# Seconds of sound that recordings are stretches of, each at a loudness of its own.
BANK_SECONDS = 600


def recordings(hours: float, sample_rate: int, seed: int = 1) -> Iterator[np.ndarray]:
    """Yield samples [S] of 3 to 17 s each, float32, until they last so many hours together."""
    generator = np.random.default_rng(seed)
    bank = _bank(sample_rate, generator)
    missing = hours * 3600 * sample_rate
    while missing > 0:
        n_samples = int(generator.uniform(SHORTEST, LONGEST) * sample_rate)
        start = int(generator.integers(0, len(bank) - n_samples))
        yield np.float32(generator.uniform(0.3, 1.0)) * bank[start : start + n_samples]
        missing -= n_samples


def _bank(sample_rate: int, generator: np.random.Generator) -> np.ndarray:
    """A voice of eight partials that glides and pauses, and a little noise."""
    time_axis = np.arange(BANK_SECONDS * sample_rate) / sample_rate
    pitch = 2 * np.pi * np.cumsum(120 + 40 * np.sin(2 * np.pi * 0.37 * time_axis)) / sample_rate
    voice = sum(np.sin(k * pitch) / k for k in range(1, 9)) * np.maximum(np.sin(2 * np.pi * 3 * time_axis), 0.05)
    return (0.1 * voice + 0.003 * generator.standard_normal(len(time_axis))).astype(np.float32)
