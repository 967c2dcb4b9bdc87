"""Pieces of rows become contexts."""

# Kernels are typed by what they are compiled for, and their compile-time constants are capitals.
# mypy: allow-untyped-defs
# ruff: noqa: N803, N806

import triton
import triton.language as tl
from torch import Tensor

from lightning_modules.model.kernels.absorbed.operands import TILE, Operands, Pieces
from lightning_modules.model.kernels.absorbed.portable import share_tiles

# Pieces of a row, and numbers of them all, that a program merges at once.
MOST_MERGED = 32
MERGED_NUMBERS = 2048


def merge(operands: Operands, pieces: Pieces) -> Tensor:
    """Contexts [B, T, H, R] of all pieces of every row."""
    context = operands.query_latent.new_empty(operands.query_latent.shape)
    n_rows, n_new, n_heads, rank = context.shape
    # About as many pieces as a row has, unless rows differ, and so many numbers that few programs wait for memory.
    merged = min(triton.next_power_of_2(triton.cdiv(pieces.n_programs, n_rows) + 1), MOST_MERGED)
    block = min(triton.next_power_of_2(rank), max(MERGED_NUMBERS // merged, 16))
    _merge[(n_rows * n_new * n_heads, triton.cdiv(rank, block))](
        pieces.contexts,
        pieces.weights,
        operands.lengths,
        context,
        n_rows,
        pieces.n_programs,
        NEW=n_new,
        HEADS=n_heads,
        RANK=rank,
        TILE=TILE,
        ROWS=triton.next_power_of_2(n_rows),
        BLOCK=block,
        MERGED=merged,
        num_warps=4,
    )
    return context


@triton.jit
def _merge(
    contexts,  # as in `Pieces`
    weights,
    lengths,
    context,  # [B, T, H, R]
    n_rows,
    n_programs,
    NEW: tl.constexpr,
    HEADS: tl.constexpr,
    RANK: tl.constexpr,
    TILE: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    MERGED: tl.constexpr,
):
    """Merge BLOCK numbers of the context of one head of one new token."""
    query = tl.program_id(0)
    row = query // (NEW * HEADS)
    column = query % (NEW * HEADS)
    ends, share = share_tiles(lengths, n_rows, n_programs, NEW, TILE, ROWS)
    rows = tl.arange(0, ROWS)
    start = tl.max(tl.where(rows < row, ends, 0), axis=0)
    stop = tl.max(tl.where(rows <= row, ends, 0), axis=0)
    first = start // share
    n_pieces = (stop - 1) // share + 1 - first
    of_sums = weights + (n_programs + n_rows - 1).to(tl.int64) * (NEW * HEADS)
    dim = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    largest = float("-inf")
    total = 0.0
    merged = tl.zeros([BLOCK], tl.float32)
    for begin in range(0, n_pieces, MERGED):
        number = begin + tl.arange(0, MERGED)
        inside = number < n_pieces
        place = (row + first + number).to(tl.int64) * (NEW * HEADS) + column
        maxima = tl.load(weights + place, mask=inside, other=float("-inf"))
        sums = tl.load(of_sums + place, mask=inside, other=0.0)
        part = tl.load(
            contexts + place[:, None] * RANK + dim[None, :], mask=inside[:, None] & (dim < RANK)[None, :], other=0.0
        )
        larger = tl.maximum(largest, tl.max(maxima, axis=0))
        shrunk = tl.exp2(largest - larger)
        factor = tl.exp2(maxima - larger)
        total = total * shrunk + tl.sum(sums * factor, axis=0)
        merged = merged * shrunk + tl.sum(part * factor[:, None], axis=0)
        largest = larger
    at = context + query.to(tl.int64) * RANK + dim
    tl.store(at, (merged / total).to(context.dtype.element_ty), mask=dim < RANK)
