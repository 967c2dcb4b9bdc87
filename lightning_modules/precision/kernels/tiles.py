"""Kernels that quantise rows and weights to E4M3, each in both layouts that products want, in one reading."""

# Kernels are typed by what they are compiled for, and their compile-time constants are capitals.
# mypy: allow-untyped-defs
# ruff: noqa: N803

from triton.experimental import gluon
from triton.experimental.gluon import language as gl

from lightning_modules.precision.kernels.rounding import (
    BY_ROWS,
    factor_for,
    holds_rows,
    larger,
    rows_and_columns,
    store_block_scale,
    store_both_ways,
    store_tiles,
)


@gluon.jit
def quantise_rows(
    tokens,  # [n_tokens, n_columns], columns next to each other
    choices,  # [stored_rows] int32 from `plan_rows`; None: row r is token r
    values,  # as in `store_tiles`, like all that follow
    scales,
    transposed,
    transposed_scales,
    n_tokens,
    n_columns,
    stored_rows,
    tile_stride,
    column_stride,
    scale_stride,
    row_stride,
    N_CHOSEN: gl.constexpr,
    LARGEST: gl.constexpr,
    SMALLEST_AMAX: gl.constexpr,
    POWER_OF_TWO: gl.constexpr,
):
    """Gather rows from tokens, and quantise them; rows that stand for none are zeros, whole tiles of these are left."""
    tile = gl.program_id(1)
    column_tile = gl.program_id(0)
    rows, columns = rows_and_columns(tile * 128, column_tile * 128, BY_ROWS)
    if choices is None:
        token = rows
        is_token = rows < n_tokens
    else:
        choice = gl.load(choices + rows)
        token = choice // N_CHOSEN
        is_token = choice >= 0
    if holds_rows(choices, tile, n_tokens):
        inside = is_token[:, None] & (columns < n_columns)[None, :]
        sources = tokens + token[:, None].to(gl.int64) * row_stride + columns[None, :]
        store_tiles(
            gl.load(sources, inside, other=0.0),
            tile,
            column_tile,
            values,
            scales,
            transposed,
            transposed_scales,
            stored_rows,
            n_columns,
            tile_stride,
            column_stride,
            scale_stride,
            LARGEST,
            SMALLEST_AMAX,
            POWER_OF_TWO,
        )


@gluon.jit
def quantise_blocks(
    weight,  # [stack, n_rows, n_columns], row-major
    values,  # [stack, n_rows, n_columns], row-major
    scales,  # [stack, row blocks, column blocks], row-major
    transposed,  # [stack, n_columns, n_rows], row-major
    transposed_scales,  # [stack, column blocks, row blocks], row-major
    n_rows,
    n_columns,
    LARGEST: gl.constexpr,
    SMALLEST_AMAX: gl.constexpr,
    POWER_OF_TWO: gl.constexpr,
):
    """Quantise every matrix of `weight` in square blocks, by one factor each, which serves the transpose as well."""
    row_blocks = gl.cdiv(n_rows, 128)
    matrix = gl.program_id(1) // row_blocks
    row_block = gl.program_id(1) % row_blocks
    column_block = gl.program_id(0)
    first = matrix.to(gl.int64) * n_rows * n_columns
    rows, columns = rows_and_columns(row_block * 128, column_block * 128, BY_ROWS)
    inside = (rows < n_rows)[:, None] & (columns < n_columns)[None, :]
    sources = weight + first + rows[:, None] * n_columns + columns[None, :]
    numbers = gl.load(sources, inside, other=0.0).to(gl.float32)
    amax = gl.reduce(gl.reduce(gl.abs(numbers), 1, larger), 0, larger)
    factor = factor_for(amax, LARGEST, SMALLEST_AMAX, POWER_OF_TWO)
    rounded = (numbers * factor).to(values.dtype.element_ty)
    store_both_ways(rounded, row_block * 128, column_block * 128, values + first, transposed + first, n_rows, n_columns)
    column_blocks = gl.cdiv(n_columns, 128)
    store_block_scale(factor, scales, transposed_scales, matrix, row_block, column_block, row_blocks, column_blocks)
