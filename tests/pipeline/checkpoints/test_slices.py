from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lightning_modules.precision.emulation import E4M3
from pipeline.checkpoints.names import Part
from pipeline.checkpoints.slices import chunks, columns, joined, part_of, rows, same_bits, same_numbers
from pipeline.checkpoints.stored_tensor import StoredTensor


def stored(tensor: Tensor, scale: Tensor | None = None, log: list[tuple[int, int]] | None = None) -> StoredTensor:
    def read_rows(start: int, stop: int) -> Tensor:
        if log is not None:
            log.append((start, stop))
        return tensor[start:stop].clone()

    factors = None if scale is None else stored(scale)
    return StoredTensor(
        tuple(tensor.shape), tensor.dtype, Path("file"), tensor.clone, scale=factors, read_rows=read_rows
    )


@pytest.fixture
def quantised() -> StoredTensor:
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randn(300, 200, generator=generator)
    return stored(numbers.to(E4M3), torch.rand(3, 2, generator=generator))


def scale_of(tensor: StoredTensor) -> Tensor:
    assert tensor.scale is not None
    return tensor.scale.read()


def test_rows_and_columns_take_their_blocks_factors_along(quantised: StoredTensor) -> None:
    whole, factors = quantised.read(), scale_of(quantised)
    bottom = rows(quantised, 128, 300)
    assert same_bits(bottom.read(), whole[128:])
    assert torch.equal(scale_of(bottom), factors[1:])
    corner = columns(bottom, 128, 200)
    assert corner.shape == (172, 72)
    assert same_bits(corner.read(), whole[128:, 128:])
    assert torch.equal(scale_of(corner), factors[1:, 1:])


@pytest.mark.parametrize("cut", [lambda x: rows(x, 0, 100), lambda x: columns(x, 64, 200)])
def test_a_cut_through_a_block_is_refused(quantised: StoredTensor, cut: Callable) -> None:
    with pytest.raises(ValueError, match="cuts through a block of 128"):
        cut(quantised)


@pytest.mark.parametrize("dim", [0, 1])
def test_what_was_cut_can_be_joined(quantised: StoredTensor, dim: int) -> None:
    cut = rows if dim == 0 else columns
    pieces = [cut(quantised, 0, 128), cut(quantised, 128, quantised.shape[dim])]
    whole = joined(pieces, dim)
    assert same_numbers(whole, quantised)
    assert torch.equal(scale_of(whole), scale_of(quantised))
    assert same_bits(rows(whole, 128, 256).read(), quantised.read()[128:256])


def test_pieces_that_do_not_fit_are_not_joined(quantised: StoredTensor) -> None:
    with pytest.raises(ValueError, match="different types or sides"):
        joined([stored(torch.zeros(2, 3)), stored(torch.zeros(2, 4))], 0)
    with pytest.raises(ValueError, match="do not end with a whole block"):
        joined([quantised, quantised], 0)


def test_a_part_of_a_stack_reads_no_other_expert() -> None:
    stack, log = torch.arange(5 * 6 * 4).float().view(5, 6, 4), []
    part = part_of(stored(stack, log=log), Part("own", (3, 4), expert=2, start=3))
    assert torch.equal(part.read(), stack[2, 3:])
    assert log == [(2, 3)]


def test_chunks_are_whole_blocks_of_rows() -> None:
    tensor = torch.randn(400, 10)
    found = list(chunks(stored(tensor), 2000))
    assert [start for start, _ in found] == [0, 128, 256, 384]
    assert torch.equal(torch.cat([chunk for _, chunk in found]), tensor)


def test_the_same_numbers_are_the_same_bits() -> None:
    zeros = torch.zeros(3, 3)
    assert same_numbers(stored(torch.full((3, 3), torch.nan)), stored(torch.full((3, 3), torch.nan)))
    assert not same_numbers(stored(zeros), stored(-zeros))
    assert not same_numbers(stored(zeros), stored(zeros.bfloat16()))
