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
    numbers_of_tile,
    raise_maxima,
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
    row_maxima,  # of tokens, [n_tokens] in whole tiles
    column_maxima,
    row_stride,
    N_CHOSEN: gl.constexpr,
    LARGEST: gl.constexpr,
    SMALLEST_AMAX: gl.constexpr,
    POWER: gl.constexpr,
):
    """Gather rows from tokens, and quantise them; rows that stand for none are zeros, whole tiles of these are left.

    Without `values` only the maxima are found out.
    """
    tile = gl.program_id(1)
    column_tile = gl.program_id(0)
    rows, columns = rows_and_columns(tile * 128, column_tile * 128, BY_ROWS)
    if choices is None:
        token = rows
        is_token = rows < n_tokens
        maxima_places = numbers_of_tile(tile)
    else:
        choice = gl.load(choices + rows)
        token = choice // N_CHOSEN
        is_token = choice >= 0
        choice = gl.load(choices + numbers_of_tile(tile))
        maxima_places = gl.where(choice >= 0, choice // N_CHOSEN, -1)
    if holds_rows(choices, tile, n_tokens):
        inside = is_token[:, None] & (columns < n_columns)[None, :]
        sources = tokens + token[:, None].to(gl.int64) * row_stride + columns[None, :]
        numbers = gl.load(sources, inside, other=0.0)
        if values is None:
            raise_maxima(numbers, token, is_token, columns, row_maxima, column_maxima, n_columns)
        else:
            store_tiles(
                numbers,
                tile,
                column_tile,
                (values, scales, transposed, transposed_scales),
                (stored_rows, n_columns),
                (tile_stride, column_stride, scale_stride),
                (row_maxima, column_maxima, maxima_places),
                LARGEST,
                SMALLEST_AMAX,
                POWER,
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
    POWER: gl.constexpr,
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
    factor = factor_for(amax, LARGEST, SMALLEST_AMAX, POWER)
    rounded = (numbers * factor).to(values.dtype.element_ty)
    targets = (values + first, transposed + first)
    store_both_ways(rounded, row_block * 128, column_block * 128, *targets, n_rows, n_columns, n_rows)
    block = (matrix, row_block, column_block)
    store_block_scale(factor, scales, transposed_scales, block, row_blocks, gl.cdiv(n_columns, 128), row_blocks)
