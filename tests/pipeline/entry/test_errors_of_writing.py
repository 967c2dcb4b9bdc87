"""Libraries that write tensors tell of a full disk in errors of their own."""

import resource
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

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
