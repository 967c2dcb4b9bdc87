from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile


def voice(seconds: float, sample_rate: int, seed: int) -> np.ndarray:
    """Gliding harmonics of a falling spectrum, in syllables with pauses between them, over a little breath."""
    generator = np.random.default_rng(seed)
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    phase = 2 * np.pi * np.cumsum(120 + 40 * np.sin(2 * np.pi * 0.7 * time + seed)) / sample_rate
    harmonics = sum(np.sin(k * phase + k) / k for k in range(1, 21))
    syllables = np.maximum(np.sin(2 * np.pi * 2 * time), 0) ** 0.5
    return (0.1 * harmonics * syllables + 1e-3 * generator.standard_normal(len(time))).astype(np.float32)


@pytest.fixture(scope="session")
def make_voice() -> Callable[[float, int, int], np.ndarray]:
    return voice


@pytest.fixture(scope="session")
def human_speech(fsdd_root: Path) -> Callable[[int], list[np.ndarray]]:
    """Twelve utterances at 8 kHz, two for each of six speakers: ten digits each, of the given repetition."""

    def read(repetition: int) -> list[np.ndarray]:
        utterances = []
        for speaker in ("george", "jackson", "lucas", "nicolas", "theo", "yweweler"):
            for take in (repetition, repetition + 1):
                names = [f"{digit}_{speaker}_{take}.wav" for digit in range(10)]
                digits = [soundfile.read(fsdd_root / "recordings" / name, dtype="float32")[0] for name in names]
                utterances.append(np.concatenate([digit / np.sqrt(np.mean(digit**2)) * 0.07 for digit in digits]))
        return utterances

    return read
