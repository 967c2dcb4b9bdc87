from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from pipeline.checkpoints.stored_tensor import StoredTensor
from pipeline.checkpoints.writing.safetensors_writer import safetensors_file
from pipeline.checkpoints.writing.tensors import PlannedTensor, planned

TYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn)


def stored(tensor: Tensor) -> StoredTensor:
    read_rows = partial(lambda start, stop: tensor[start:stop])
    return StoredTensor(tuple(tensor.shape), tensor.dtype, Path("file"), lambda: tensor, read_rows=read_rows)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., tuple[Path, list[int]]]:
    def run(*tensors: PlannedTensor) -> tuple[Path, list[int]]:
        steps: list[int] = []
        file = safetensors_file("model.safetensors", tensors)
        file.write(tmp_path / file.name, steps.append)
        assert sum(steps) == file.n_bytes
        return tmp_path / file.name, steps

    return run


def test_the_library_reads_every_type_and_shape(write) -> None:
    tensors = {
        f"{index}.{'x'.join(map(str, shape))}": torch.randn(shape).to(dtype)
        for index, dtype in enumerate(TYPES)
        for shape in ((1,), (3, 5), (2, 3, 7))
    }
    path, _ = write(*(planned(name, stored(tensor)) for name, tensor in tensors.items()))
    with safe_open(path, framework="pt") as file:
        assert file.metadata() == {"format": "pt"}
        assert set(file.keys()) == set(tensors)
        for name, tensor in tensors.items():
            read = file.get_tensor(name)
            assert read.dtype == tensor.dtype
            assert torch.equal(read.double(), tensor.double()), name


def test_a_stack_is_its_pieces_one_after_the_other(write) -> None:
    pieces = torch.randn(4, 3, 5)
    stack = PlannedTensor("stack", (2, 6, 5), torch.float32, tuple(stored(piece) for piece in pieces))
    path, _ = write(stack)
    with safe_open(path, framework="pt") as file:
        assert torch.equal(file.get_tensor("stack"), pieces.reshape(2, 6, 5))


def test_zeros_become_holes(write) -> None:
    mixed = torch.zeros(3, 2**20)
    mixed[1, 5] = 1
    last = torch.zeros(2**20)
    path, _ = write(planned("mixed", stored(mixed)), planned("last", stored(last)))
    assert path.stat().st_size > 16 * 2**20
    assert path.stat().st_blocks * 512 < 3 * 2**20
    with safe_open(path, framework="pt") as file:
        assert torch.equal(file.get_tensor("mixed"), mixed)
        assert torch.equal(file.get_tensor("last"), last)


def test_large_tensors_are_written_in_steps(write) -> None:
    _, steps = write(planned("large", stored(torch.ones(2**14, 2**10))))
    assert len(steps) > 1


def test_pieces_of_several_types_are_refused() -> None:
    pieces = (stored(torch.zeros(2, 2)), stored(torch.zeros(2, 2).bfloat16()))
    with pytest.raises(ValueError, match="stack would be made of tensors of several types.*set dtype to bfloat16"):
        PlannedTensor("stack", (2, 2, 2), torch.float32, pieces)
    with pytest.raises(ValueError, match="cannot be made of its parts"):
        PlannedTensor("stack", (3, 2, 2), torch.float32, pieces[:1])
