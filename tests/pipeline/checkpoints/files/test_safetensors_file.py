"""What a safetensors file holds; `malformed/headers.py` has those that lie."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pipeline.checkpoints.files.safetensors_file import open_safetensors
from pipeline.checkpoints.stored_tensor import DamagedCheckpointError


@pytest.mark.parametrize(
    "dtype",
    [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.int64, torch.bool],
)
def test_tensors_of_every_type_are_read_whole_and_by_rows(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = {"a": torch.randn(5, 3).to(dtype), "b": torch.ones(2).to(dtype), "c": torch.tensor(1).to(dtype)}
    save_file(tensors, tmp_path / "x.safetensors", metadata={"format": "pt"})
    found, metadata = open_safetensors(tmp_path / "x.safetensors")
    assert metadata == {"format": "pt"}
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert (found[name].shape, found[name].dtype) == (tuple(tensor.shape), dtype)
        assert found[name].read().float().equal(tensor.float())
    assert found["a"].read_rows is not None
    assert found["a"].read_rows(1, 4).float().equal(tensors["a"][1:4].float())
    assert found["c"].read_rows is None


def test_a_file_without_tensors_is_empty(tmp_path: Path) -> None:
    save_file({}, tmp_path / "x.safetensors")
    assert open_safetensors(tmp_path / "x.safetensors") == ({}, {})


def test_a_file_that_is_cut_off_after_it_was_opened_is_refused_when_read(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.ones(100)}, path)
    found, _ = open_safetensors(path)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(DamagedCheckpointError, match="x.safetensors ends before byte"):
        found["a"].read()


def test_no_file_is_said_to_be_absent(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="x.safetensors does not exist"):
        open_safetensors(tmp_path / "x.safetensors")
