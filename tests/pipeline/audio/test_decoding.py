"""The cases that were found in the wild, where they lie beside the checkout; `containers/` has their kinds."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.audio.decoding import AudioStream
from pipeline.audio.reading import UnusableRecording
from pipeline.audio.survey import survey

CASES = Path(__file__).parents[4] / "shared" / "cases"
UNKNOWN = "its header does not tell the length; read to the end"
CANCELLED = "its channels cancel when averaged: channel 1 is taken"

EXPECTED = {
    "mp3_trunc.mp3": (3.5, ("its last frame is cut off",), "holds 3.5 of 7.1 s"),
    "ogg_zeroed_4k.ogg": (3.0, (), "holds 3.0 of 7.1 s: bytes 17276 to 26055 hold no whole Ogg page"),
    "rf64_truncated.wav": (3.5, (), "holds 3.5 of 7.1 s"),
    "flac_total_small.flac": (7.1, ("its header tells of 3.5 s, 7.1 s are there and were read",), ""),
    "flac_pipe.flac": (7.1, (UNKNOWN,), ""),
    "stereo_antiphase.wav": (7.1, (CANCELLED,), ""),
}


@pytest.mark.skipif(not CASES.is_dir(), reason="shared/cases does not lie beside the checkout")
@pytest.mark.parametrize("name", EXPECTED)
def test_cases(name):
    found = survey(CASES / name, silence_rms=1e-4, max_seconds=3600)
    assert (round(found.seconds, 1), found.notes, found.damage) == EXPECTED[name]
    assert found.rms > 0.01


def test_blocks_are_bounded_and_give_what_was_written(tmp_path, encoded):
    (tmp_path / "a.wav").write_bytes(encoded("WAV", 40.0, "FLOAT"))
    with AudioStream(tmp_path / "a.wav") as stream:
        blocks = list(stream.blocks())
    assert len(blocks) == 3
    assert max(block.size for block in blocks) == 1 << 18
    assert all((block.dtype, block.ndim) == (np.float32, 2) for block in blocks)


def test_a_disk_that_fails_is_named(tmp_path, encoded, monkeypatch):
    (tmp_path / "a.wav").write_bytes(encoded("WAV"))
    with AudioStream(tmp_path / "a.wav") as stream:
        monkeypatch.setattr(stream._window, "_file", FailingFile())
        with pytest.raises(UnusableRecording, match="Input/output error"):
            list(stream.blocks())


class FailingFile:
    def seek(self, offset: int) -> int:
        return offset

    def readinto(self, buffer: memoryview) -> int:
        raise OSError(5, "Input/output error")
