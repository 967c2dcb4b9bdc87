"""Exchanges of rows between ranks, with their gradients, in operations that compiled and recorded code can keep.

Suffixes: N rows of one rank, P ranks, D numbers of a row, of any shape.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributed._functional_collectives import wait_tensor


class Ranks(NamedTuple):
    """A process group, in words that compiled code can keep."""

    size: int
    name: str


def set_out(rows: Tensor, ranks: Ranks) -> Tensor:
    """The rows of all ranks [P·N, D], under way until they have `arrived`; so are gradients, the other way."""
    return _SetOut.apply(rows, ranks)


def arrived(under_way: Tensor, ranks: Ranks) -> Tensor:
    """What has `set_out`."""
    return _Arrived.apply(under_way, ranks)


def summed(rows: Tensor, ranks: Ranks) -> Tensor:
    """Sums [N, D] over all ranks of what they have for each rank's rows [P·N, D]; gradients are gathered."""
    return _Summed.apply(rows, ranks)


class _SetOut(torch.autograd.Function):
    """Gradients that are under way here arrive, and are added up."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks = ranks
        return gather(rows, ranks)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return add_up(gradients[0], ctx.ranks), None


class _Arrived(torch.autograd.Function):
    """Gradients set out for the ranks whose rows they are of."""

    @staticmethod
    def forward(ctx: Any, under_way: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks = ranks
        return wait_tensor(under_way)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return give_back(gradients[0], ctx.ranks), None


class _Summed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks = ranks
        return add_up(give_back(rows, ranks), ranks)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return wait_tensor(gather(gradients[0], ctx.ranks)), None


def gather(rows: Tensor, ranks: Ranks) -> Tensor:
    """[N, D] of every rank to [P·N, D] on every rank, under way."""
    return torch.ops._c10d_functional.all_gather_into_tensor(rows.contiguous(), ranks.size, ranks.name)


def give_back(rows: Tensor, ranks: Ranks) -> Tensor:
    """[P·N, D], N for each rank, to the same from each rank, under way."""
    shares = [rows.shape[0] // ranks.size] * ranks.size
    return torch.ops._c10d_functional.all_to_all_single(rows.contiguous(), shares, shares, ranks.name)


def add_up(under_way: Tensor, ranks: Ranks) -> Tensor:
    """[P·N, D], N from each rank, to their sum [N, D], rounded once."""
    # Torch adds BF16 up in FP32.
    return wait_tensor(under_way).unflatten(0, (ranks.size, -1)).sum(dim=0)


def sum_over_ranks(x: Tensor, ranks: Ranks) -> Tensor:
    """The sum of every rank's `x`, of any shape, on every rank."""
    return wait_tensor(torch.ops._c10d_functional.all_reduce(x.contiguous(), "sum", ranks.name))
