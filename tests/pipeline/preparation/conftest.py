from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pytest

from pipeline.audio.corpora.corpus import Recording
from pipeline.audio.reading import UnusableRecording

RATE = 8000


def voice(seconds: float, seed: int, sample_rate: int = RATE) -> np.ndarray:
    """Syllables of gliding harmonics over a little breath: no two seeds alike."""
    generator = np.random.default_rng(seed)
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    phase = 2 * np.pi * np.cumsum(120 + 40 * np.sin(2 * np.pi * 0.7 * time + seed)) / sample_rate
    harmonics = sum(np.sin(k * phase + k) / k for k in range(1, 11))
    syllables = np.maximum(np.sin(2 * np.pi * 3 * time), 0) ** 0.5
    return (0.1 * harmonics * syllables + 1e-3 * generator.standard_normal(len(time))).astype(np.float32)


@dataclass(frozen=True)
class MemoryCorpus:
    """Recordings given by the test: samples, or the reason why there are none."""

    audio: Mapping[str, np.ndarray | str]
    sample_rate: int = RATE
    name = "memory"

    def recordings(self) -> list[Recording]:
        return [Recording(name, speaker=name.split("/")[0], transcript=f"says {name}") for name in self.audio]

    def read(self, recording: Recording) -> tuple[np.ndarray, int]:
        audio = self.audio[recording.id]
        if isinstance(audio, str):
            raise UnusableRecording(audio)
        return audio, self.sample_rate


@pytest.fixture(scope="session")
def make_voice() -> Callable[..., np.ndarray]:
    return voice


@pytest.fixture(scope="session")
def make_corpus() -> type[MemoryCorpus]:
    return MemoryCorpus
