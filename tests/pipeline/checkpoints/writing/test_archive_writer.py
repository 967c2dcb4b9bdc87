import zipfile
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pipeline.checkpoints.stored_tensor import StoredTensor
from pipeline.checkpoints.writing.archive_writer import archive_file
from pipeline.checkpoints.writing.tensors import PlannedTensor, planned


def stored(tensor: Tensor) -> StoredTensor:
    read_rows = partial(lambda start, stop: tensor[start:stop])
    return StoredTensor(tuple(tensor.shape), tensor.dtype, Path("file"), lambda: tensor, read_rows=read_rows)


@pytest.fixture
def tensors() -> dict[str, Tensor]:
    return {
        "a": torch.randn(40, 7),
        "b": torch.randn(3, 2, 5).bfloat16(),
        "c": torch.zeros(2**20),
        "d": torch.randn(1),
    }


def write(path: Path, tensors: list[PlannedTensor]) -> Path:
    archive_file(path.name, tensors, lambda empty: {"weights": empty, "step": 3}).write(path, lambda n_bytes: None)
    return path


@pytest.mark.parametrize("mmap", [True, False])
def test_torch_reads_what_was_written(tensors: dict[str, Tensor], tmp_path: Path, mmap: bool) -> None:
    path = write(tmp_path / "x.ckpt", [planned(name, stored(tensor)) for name, tensor in tensors.items()])
    content = torch.load(path, weights_only=True, mmap=mmap)
    assert content["step"] == 3
    assert list(content["weights"]) == list(tensors)
    for name, tensor in tensors.items():
        assert content["weights"][name].dtype == tensor.dtype
        assert torch.equal(content["weights"][name], tensor), name


def test_any_zip_program_finds_it_whole(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    path = write(tmp_path / "x.ckpt", [planned(name, stored(tensor)) for name, tensor in tensors.items()])
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
    assert path.stat().st_blocks * 512 < 2**20, "zeros take room"
