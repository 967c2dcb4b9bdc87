"""A few columns of a matrix as so many tensors, instead of one of two dimensions.

What columns are multiplied by then lies in the same threads as their numbers do, however wide the types are: as one
tensor, numbers in FP8 are spread over threads by sixteen, those in BF16 by eight, and have to be exchanged each time.
"""

# Kernels are typed by what they are compiled for, and their compile-time constants are capitals.
# mypy: allow-untyped-defs
# ruff: noqa: N803

import triton
import triton.language as tl


@triton.jit
def load_columns(weight, first_column, k, n_columns, DEPTH: tl.constexpr, TILE: tl.constexpr):
    """TILE columns of a row-major matrix of DEPTH columns, each [k], zeros outside of it."""
    columns = ()
    for number in tl.static_range(TILE):
        column = first_column + number
        columns += (tl.load(weight + column * DEPTH + k, mask=(k < DEPTH) & (column < n_columns), other=0.0),)  # type: ignore[assignment]
    return columns


@triton.jit
def zeros(CHUNK: tl.constexpr, TILE: tl.constexpr):
    """TILE times FP32 [CHUNK]."""
    columns = ()
    for _ in tl.static_range(TILE):
        columns += (tl.zeros([CHUNK], tl.float32),)  # type: ignore[assignment]
    return columns


@triton.jit
def add_products(totals, columns, numbers, TILE: tl.constexpr):
    """`totals` of TILE columns plus their products with `numbers` [k]."""
    sums = ()
    for number in tl.static_range(TILE):
        sums += (totals[number] + columns[number].to(tl.float32) * numbers,)  # type: ignore[assignment]
    return sums


@triton.jit
def sum_columns(columns, CHUNK: tl.constexpr, TILE: tl.constexpr):
    """Sums [TILE] of as many tensors [CHUNK], a power of two."""
    for level in tl.static_range(5):
        # The first half beside the second, and so on: what is last has the columns in order.
        joined = ()
        for number in tl.static_range(TILE >> (level + 1)):
            joined += (tl.join(columns[number], columns[number + (TILE >> (level + 1))]),)  # type: ignore[assignment]
        if TILE >> level > 1:
            columns = joined
    return tl.sum(tl.reshape(columns[0], [CHUNK, TILE]), axis=0)
