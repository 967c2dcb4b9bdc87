import functools
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from pipeline.audio.decoding import AudioStream

RATE = 16000


def sweep(seconds: float, rate: int = RATE) -> np.ndarray:
    """Samples [S], no stretch of which is like another."""
    time = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(round(seconds * 1000)).standard_normal(len(time))
    return (0.3 * np.sin(2 * np.pi * (200 + 100 * time) * time) + 0.01 * noise).astype(np.float32)


@pytest.fixture(scope="session")
def encoded() -> Callable[..., bytes]:
    """The bytes of a sweep in a format that soundfile writes."""

    @functools.cache
    def encode(form: str, seconds: float = 4.0, subtype: str | None = None, rate: int = RATE) -> bytes:
        file = io.BytesIO()
        soundfile.write(file, sweep(seconds, rate), rate, format=form, subtype=subtype)
        return file.getvalue()

    return encode


@pytest.fixture
def decode(tmp_path: Path) -> Callable[[bytes], tuple[float, list[str], str]]:
    """The seconds, the notes and the damage of a file with these bytes."""

    def read(content: bytes) -> tuple[float, list[str], str]:
        (tmp_path / "file").write_bytes(content)
        with AudioStream(tmp_path / "file") as stream:
            n_frames = sum(len(block) for block in stream.blocks())
            return n_frames / stream.sample_rate, stream.notes, stream.damage

    return read
