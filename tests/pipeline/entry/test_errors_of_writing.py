"""Libraries that write tensors and sounds tell of a full disk in errors of their own."""

import resource
import signal
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import save_file

from pipeline.audio.reading import write_wav
from pipeline.entry.errors import sentence_of


@pytest.fixture
def small_disk():
    """Files of this process are at most 4 KiB large."""
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize(
    "save", [lambda tensors, path: save_file(tensors, path), torch.save], ids=["safetensors", "torch"]
)
def test_tensors_that_do_not_fit_are_told_in_a_sentence(small_disk: None, tmp_path: Path, save) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - each library raises a type of its own
        save({"a": torch.zeros(100_000)}, tmp_path / "a.file")
    assert "paths.outputs" in str(sentence_of(caught.value))


def test_sounds_that_do_not_fit_or_may_not_be_written_are_told_in_a_sentence(small_disk: None, tmp_path: Path) -> None:
    with pytest.raises(Exception, match="System error") as too_large:
        write_wav(tmp_path / "a.wav", np.zeros(100_000), 8000)
    assert "the disk takes no more" in str(sentence_of(too_large.value))
    (tmp_path / "b.wav").mkdir()
    with pytest.raises(Exception, match="System error") as forbidden:
        soundfile.write(tmp_path / "b.wav", np.zeros(8), 8000)
    assert f"written ({tmp_path / 'b.wav'})" in str(sentence_of(forbidden.value))
    assert [path.name for path in tmp_path.iterdir()] == ["b.wav"]
