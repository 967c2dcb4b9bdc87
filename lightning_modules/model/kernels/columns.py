"""A few columns of a matrix as so many tensors, instead of one of two dimensions, and what becomes of them.

What columns are multiplied by then lies in the same threads as their numbers do, however wide the types are: as one
tensor, numbers in FP8 are spread over threads by sixteen, those in BF16 by eight, and have to be exchanged each time.

A column's numbers [threads, numbers] are those of each thread, one thread after the other. A thread adds up its own
first, and what it keeps is one sum a column.
"""

# Kernels are typed by what they are compiled for, and their compile-time constants are capitals.
# mypy: allow-untyped-defs
# ruff: noqa: N803, N806

import triton
import triton.language as tl


@triton.jit
def positions(start, CHUNK: tl.constexpr, NUMBERS: tl.constexpr):
    """Where CHUNK numbers from `start` on lie, NUMBERS of them in a thread."""
    thread = tl.arange(0, CHUNK // NUMBERS)
    return start + thread[:, None] * NUMBERS + tl.arange(0, NUMBERS)[None, :]


@triton.jit
def load_factors(
    scales, column, start, DEPTH: tl.constexpr, CHUNK: tl.constexpr, NUMBERS: tl.constexpr, SCALED: tl.constexpr
):
    """What threads' sums are multiplied by: the scales of the blocks, below one another, that `column` is in."""
    THREADS: tl.constexpr = CHUNK // NUMBERS
    factors = tl.full([THREADS], 1.0, tl.float32)
    if scales is not None:
        DEPTH_BLOCKS: tl.constexpr = (DEPTH + SCALED - 1) // SCALED
        block = (start + tl.arange(0, THREADS) * NUMBERS) // SCALED
        factors = tl.load(scales + column // SCALED * DEPTH_BLOCKS + block, mask=block < DEPTH_BLOCKS, other=0.0)
    return factors


@triton.jit
def load_columns(weight, first_column, step, n_columns, k, DEPTH: tl.constexpr, TILE: tl.constexpr):
    """TILE columns, each at `k`, of a row-major matrix of DEPTH columns, `step` apart; zeros from `n_columns` on."""
    columns = ()
    for number in tl.static_range(TILE):
        at = weight + (first_column + number * step) * DEPTH + k
        columns += (tl.load(at, mask=(k < DEPTH) & (number < n_columns), other=0.0),)  # type: ignore[assignment]
    return columns


@triton.jit
def zeros(THREADS: tl.constexpr, TILE: tl.constexpr):
    """TILE times FP32 [threads]."""
    columns = ()
    for _ in tl.static_range(TILE):
        columns += (tl.zeros([THREADS], tl.float32),)  # type: ignore[assignment]
    return columns


@triton.jit
def add_products(totals, columns, numbers, factors, TILE: tl.constexpr):
    """`totals` [threads] of TILE columns plus their products with `numbers` [threads, numbers] times `factors`."""
    sums = ()
    for number in tl.static_range(TILE):
        sums += (totals[number] + tl.sum(columns[number].to(tl.float32) * numbers, axis=1) * factors,)  # type: ignore[assignment]
    return sums


@triton.jit
def sum_columns(columns, THREADS: tl.constexpr, TILE: tl.constexpr):
    """Sums [TILE] of as many tensors [threads], a power of two."""
    for level in tl.static_range(5):
        # The first half beside the second, and so on: what is last has the columns in order.
        joined = ()
        for number in tl.static_range(TILE >> (level + 1)):
            joined += (tl.join(columns[number], columns[number + (TILE >> (level + 1))]),)  # type: ignore[assignment]
        if TILE >> level > 1:
            columns = joined
    return tl.sum(tl.reshape(columns[0], [THREADS, TILE]), axis=0)


@triton.jit
def multiply_columns(columns, numbers, factors, THREADS: tl.constexpr, TILE: tl.constexpr):
    """Products [TILE] of columns with `numbers` times `factors` (see `add_products`)."""
    return sum_columns(add_products(zeros(THREADS, TILE), columns, numbers, factors, TILE), THREADS, TILE)
