from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from pipeline.audio.codecs.mel_rvq import MelRvqCodec
from pipeline.streaming.prompt import read_prompt


@pytest.mark.parametrize(("name", "rate", "channels"), [("a.wav", 8000, 1), ("b.flac", 22050, 2), ("c.ogg", 16000, 1)])
def test_any_format_and_rate_is_brought_to_the_codec_s(
    codec: MelRvqCodec, tmp_path: Path, name: str, rate: int, channels: int
) -> None:
    noise = 0.1 * np.random.default_rng(0).standard_normal((rate // 2, channels))
    soundfile.write(tmp_path / name, noise, rate)
    codes = read_prompt(tmp_path / name, codec, name)
    assert codes.shape == (1 + 4000 // 64, 2)
    assert codes.dtype == torch.long


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "prompt=clip.wav: the file does not exist; give a WAV"),
        (b"no audio", "prompt=clip.wav: not a readable audio file"),
        (b"", r"prompt=clip.wav: the file is empty \(0 bytes\)"),
    ],
)
def test_what_is_no_recording_is_named(codec: MelRvqCodec, tmp_path: Path, content: bytes | None, words: str) -> None:
    if content is not None:
        (tmp_path / "clip.wav").write_bytes(content)
    with pytest.raises(ValueError, match=words):
        read_prompt(tmp_path / "clip.wav", codec, "prompt=clip.wav")


def test_samples_that_are_no_numbers_are_no_prompt(codec: MelRvqCodec, tmp_path: Path) -> None:
    samples = np.full(4000, 0.1, np.float32)
    samples[7] = np.nan
    soundfile.write(tmp_path / "broken.wav", samples, 8000, subtype="FLOAT")
    with pytest.raises(ValueError, match="holds NaN or infinite samples"):
        read_prompt(tmp_path / "broken.wav", codec, "prompt")


def test_silence_is_no_prompt(codec: MelRvqCodec, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "silence.wav", np.zeros(4000), 8000)
    with pytest.raises(ValueError, match="nothing is to be heard in it"):
        read_prompt(tmp_path / "silence.wav", codec, "prompt")
