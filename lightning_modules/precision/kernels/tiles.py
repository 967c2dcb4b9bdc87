"""Triton kernels that quantise to E4M3 in tiles and blocks of 128 (arXiv 2412.19437, section 3.3.2).

Tiles run along the columns of what a kernel reads. Columns may lie any stride apart, so that a transposed view yields
tiles along rows; what is written always has its columns next to each other, as the tensor cores want FP8 operands.
"""

# Kernels are typed by what they are compiled for, and their compile-time constants are capitals.
# mypy: allow-untyped-defs
# ruff: noqa: N803

import triton
import triton.language as tl


@triton.jit
def _larger(a, b):
    """The larger of two numbers; one that is not a number stays."""
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _factor(amax, LARGEST: tl.constexpr, SMALLEST_AMAX: tl.constexpr):
    """What brings `amax` to the largest E4M3 number."""
    amax = tl.maximum(amax, SMALLEST_AMAX, propagate_nan=tl.PropagateNan.ALL)
    return tl.div_rn(tl.zeros_like(amax) + LARGEST, amax)


@triton.jit
def _reciprocal(factor):
    return tl.div_rn(tl.zeros_like(factor) + 1.0, factor)


@triton.jit
def _rounded(x, LARGEST: tl.constexpr, dtype: tl.constexpr):
    return tl.clamp(x, -LARGEST, LARGEST, propagate_nan=tl.PropagateNan.ALL).to(dtype)


@triton.jit
def quantise_tiles(
    x,  # [n_rows, n_columns]
    values,  # [n_rows, stored_columns], row-major
    scales,  # [tiles, n_rows], row-major
    n_rows,
    n_columns,
    stored_columns,
    row_stride,
    column_stride,
    LARGEST: tl.constexpr,
    SMALLEST_AMAX: tl.constexpr,
    ROWS: tl.constexpr,
    TILE: tl.constexpr,
):
    """Quantise `x` in tiles of one row by TILE columns; columns from n_columns to stored_columns are zero."""
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    tile = tl.program_id(1)
    columns = tile * TILE + tl.arange(0, TILE)
    inside = (rows < n_rows)[:, None] & (columns < n_columns)[None, :]
    numbers = tl.load(x + rows[:, None] * row_stride + columns[None, :].to(tl.int64) * column_stride, inside, other=0.0)
    numbers = numbers.to(tl.float32)
    factor = _factor(tl.reduce(tl.abs(numbers), 1, _larger), LARGEST, SMALLEST_AMAX)
    rounded = _rounded(numbers * factor[:, None], LARGEST, values.dtype.element_ty)
    stored = (rows < n_rows)[:, None] & (columns < stored_columns)[None, :]
    tl.store(values + rows[:, None] * stored_columns + columns[None, :], rounded, stored)
    tl.store(scales + tile.to(tl.int64) * n_rows + rows, _reciprocal(factor), rows < n_rows)


@triton.jit
def quantise_grouped_tiles(
    rows,  # [n_rows, n_columns], in order of experts
    plan,  # [n_tiles, 3] from `plan_tiles`
    values,  # [n_columns, n_tiles · TILE], row-major
    scales,  # [n_tiles, n_columns], row-major
    n_columns,
    n_tiles,
    row_stride,
    column_stride,
    LARGEST: tl.constexpr,
    SMALLEST_AMAX: tl.constexpr,
    COLUMNS: tl.constexpr,
    TILE: tl.constexpr,
):
    """Quantise `rows` in tiles of TILE rows of one expert by one column, and write them transposed.

    A tile that its expert does not fill ends in zeros; one that is not in use is all zeros, and its scales are one.
    """
    tile = tl.program_id(0)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    expert = tl.load(plan + 3 * tile)
    first = tl.load(plan + 3 * tile + 1)
    end = tl.load(plan + 3 * tile + 2)
    places = (first + tl.arange(0, TILE)).to(tl.int64)
    inside = (columns < n_columns)[:, None] & (places < end)[None, :]
    numbers = tl.load(rows + columns[:, None].to(tl.int64) * column_stride + places[None, :] * row_stride, inside, 0.0)
    numbers = numbers.to(tl.float32)
    factor = _factor(tl.reduce(tl.abs(numbers), 1, _larger), LARGEST, SMALLEST_AMAX)
    rounded = _rounded(numbers * factor[:, None], LARGEST, values.dtype.element_ty)
    stored = tile * TILE + tl.arange(0, TILE)
    targets = values + columns[:, None].to(tl.int64) * (n_tiles * TILE) + stored[None, :]
    tl.store(targets, rounded, (columns < n_columns)[:, None])
    tl.store(
        scales + tile.to(tl.int64) * n_columns + columns,
        tl.where(expert < 0, 1.0, _reciprocal(factor)),
        columns < n_columns,
    )


@triton.jit
def quantise_blocks(
    weight,  # [batch, n_rows, n_columns]
    values,  # [batch, n_rows, n_columns], row-major
    scales,  # [batch, row blocks, column blocks], row-major
    n_rows,
    n_columns,
    batch_stride,
    row_stride,
    column_stride,
    LARGEST: tl.constexpr,
    SMALLEST_AMAX: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Quantise every matrix of `weight` in square blocks."""
    row_blocks = tl.cdiv(n_rows, BLOCK)
    batch = (tl.program_id(0) // row_blocks).to(tl.int64)
    row_block = tl.program_id(0) % row_blocks
    column_block = tl.program_id(1)
    rows = row_block * BLOCK + tl.arange(0, BLOCK)
    columns = column_block * BLOCK + tl.arange(0, BLOCK)
    inside = (rows < n_rows)[:, None] & (columns < n_columns)[None, :]
    sources = rows[:, None].to(tl.int64) * row_stride + columns[None, :].to(tl.int64) * column_stride
    numbers = tl.load(weight + batch * batch_stride + sources, inside, other=0.0).to(tl.float32)
    amax = tl.reduce(tl.reduce(tl.abs(numbers), 1, _larger), 0, _larger)
    factor = _factor(amax, LARGEST, SMALLEST_AMAX)
    rounded = _rounded(numbers * factor, LARGEST, values.dtype.element_ty)
    targets = (batch * n_rows + rows[:, None]) * n_columns + columns[None, :]
    tl.store(values + targets, rounded, inside)
    column_blocks = tl.cdiv(n_columns, BLOCK)
    tl.store(scales + (batch * row_blocks + row_block) * column_blocks + column_block, _reciprocal(factor))


@triton.jit
def plan_tiles(
    offsets,  # [n_experts] int32
    plan,  # [programs, 3] int32
    n_experts,
    TILE: tl.constexpr,
    EXPERTS: tl.constexpr,
):
    """Write whose rows a tile holds: its expert (-1: not in use), its first row, and where the expert's rows end."""
    tile = tl.program_id(0)
    experts = tl.arange(0, EXPERTS)
    ends = tl.load(offsets + experts, experts < n_experts, other=0)
    starts = tl.load(offsets + experts - 1, (experts > 0) & (experts < n_experts), other=0)
    tiles = tl.cdiv(ends - starts, TILE)
    tiles_until = tl.cumsum(tiles, 0)
    mine = (tiles_until > tile) & (tiles_until - tiles <= tile)
    used = tl.sum(mine.to(tl.int32), 0)
    first = tl.sum(tl.where(mine, starts + (tile - (tiles_until - tiles)) * TILE, 0), 0)
    tl.store(plan + 3 * tile, tl.sum(tl.where(mine, experts, 0), 0) + used - 1)
    tl.store(plan + 3 * tile + 1, first)
    tl.store(plan + 3 * tile + 2, tl.sum(tl.where(mine, ends, 0), 0))
