"""How the kernels round to E4M3 in tiles and blocks of 128, and how they write it (arXiv 2412.19437, section 3.3.2).

Eight warps hold 128×128 numbers. The tensor cores want FP8 operands with the side they sum over next to each other in
memory, so everything is written twice: row by row, and column by column. Both layouts of registers give the same
numbers to the same threads, eight of a row and four of a column in line, so that going from one to the other moves
nothing, and every line of memory is written whole.
"""

# Kernels are typed by what they are compiled for, and their compile-time constants are capitals.
# mypy: allow-untyped-defs
# ruff: noqa: N803

import triton.language as tl
from triton.experimental import gluon
from triton.experimental.gluon import language as gl

TILE = 128
NUM_WARPS = 8
_LANES = [[0, 8], [0, 16], [4, 0], [8, 0], [16, 0]]
_WARPS = [[0, 64], [32, 0], [64, 0]]
BY_ROWS = gl.constexpr(
    gl.DistributedLinearLayout([[0, 1], [0, 2], [0, 4], [0, 32], [1, 0], [2, 0]], _LANES, _WARPS, [], [TILE, TILE])
)
BY_COLUMNS = gl.constexpr(
    gl.DistributedLinearLayout([[1, 0], [2, 0], [0, 1], [0, 2], [0, 4], [0, 32]], _LANES, _WARPS, [], [TILE, TILE])
)

ONE_EACH = gl.constexpr(gl.BlockedLayout([1], [32], [8], [0]))


@gluon.jit
def larger(a, b):
    """The larger of two numbers; one that is not a number stays."""
    return gl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@gluon.jit
def factor_for(amax, LARGEST: gl.constexpr, SMALLEST_AMAX: gl.constexpr):
    """What brings `amax` to the largest E4M3 number."""
    return gl.div_rn(gl.to_tensor(LARGEST), larger(amax, gl.to_tensor(SMALLEST_AMAX)))


@gluon.jit
def reciprocal(factor):
    """One over `factor`, rounded once."""
    return gl.div_rn(gl.to_tensor(1.0), factor)


@gluon.jit
def factors_for(amax, places, n_places, layout: gl.constexpr, LARGEST: gl.constexpr, SMALLEST_AMAX: gl.constexpr):
    """Factors of 128 maxima, in `layout`; the reciprocals of the first `n_places` are stored from `places` on.

    Each is computed by two threads, and not by all that hold numbers of its tile.
    """
    factor = factor_for(gl.convert_layout(amax, ONE_EACH), LARGEST, SMALLEST_AMAX)
    numbers = gl.arange(0, 128, ONE_EACH)
    gl.store(places + numbers, reciprocal(factor), numbers < n_places)
    return gl.convert_layout(factor, layout)


@gluon.jit
def rows_and_columns(row, column, layout: gl.constexpr):
    """Numbers of 128 rows and 128 columns from `row` and `column` on, for tiles in `layout`."""
    rows = row + gl.arange(0, 128, gl.SliceLayout(1, layout))
    return rows, column + gl.arange(0, 128, gl.SliceLayout(0, layout))


@gluon.jit
def store_tiles(
    numbers,  # 128×128 FP32, BY_ROWS
    tile,  # of rows
    column_tile,
    values,  # [stored_rows, n_columns], row-major
    scales,  # [column tiles, stored_rows], row-major
    transposed,  # [row tiles, n_columns, 128], numbers of a tile side by side; None: not wanted
    transposed_scales,  # [row tiles, n_columns], its rows `scale_stride` apart
    stored_rows,
    n_columns,
    tile_stride,  # of `transposed`
    column_stride,
    scale_stride,
    LARGEST: gl.constexpr,
    SMALLEST_AMAX: gl.constexpr,
):
    """Round `numbers` twice: by rows of 128 columns, and by columns of 128 rows, which are written transposed."""
    rows, columns = rows_and_columns(tile * 128, column_tile * 128, BY_ROWS)
    amax = gl.reduce(gl.abs(numbers), 1, larger)
    places = scales + column_tile * stored_rows + tile * 128
    of_rows = factors_for(amax, places, 128, gl.SliceLayout(1, BY_ROWS), LARGEST, SMALLEST_AMAX)
    rounded = (numbers * of_rows[:, None]).to(values.dtype.element_ty)
    gl.store(
        values + rows[:, None].to(gl.int64) * n_columns + columns[None, :], rounded, (columns < n_columns)[None, :]
    )
    if transposed is not None:
        numbers = gl.convert_layout(numbers, BY_COLUMNS)
        rows, columns = rows_and_columns(0, column_tile * 128, BY_COLUMNS)
        amax = gl.reduce(gl.abs(numbers), 0, larger)
        places = transposed_scales + tile * scale_stride + column_tile * 128
        n_places = scale_stride - column_tile * 128
        of_columns = factors_for(amax, places, n_places, gl.SliceLayout(0, BY_COLUMNS), LARGEST, SMALLEST_AMAX)
        rounded = (numbers * of_columns[None, :]).to(values.dtype.element_ty)
        targets = transposed + tile.to(gl.int64) * tile_stride + columns[None, :].to(gl.int64) * column_stride
        gl.store(targets + rows[:, None], rounded, (columns < n_columns)[None, :])


@gluon.jit
def store_block(
    numbers,  # 128×128 FP32, BY_ROWS; zeros outside of the matrix
    row_block,
    column_block,
    matrix,  # which of a stack
    values,  # [stack, n_rows, n_columns], row-major
    scales,  # [stack, row blocks, column blocks], row-major
    transposed,  # [stack, n_columns, n_rows], row-major
    transposed_scales,  # [stack, column blocks, row blocks], row-major
    n_rows,
    n_columns,
    LARGEST: gl.constexpr,
    SMALLEST_AMAX: gl.constexpr,
):
    """Round a square block of a matrix by one factor, which serves the transpose as well."""
    amax = gl.reduce(gl.reduce(gl.abs(numbers), 1, larger), 0, larger)
    factor = factor_for(amax, LARGEST, SMALLEST_AMAX)
    numbers *= factor
    first = matrix.to(gl.int64) * n_rows * n_columns
    rows, columns = rows_and_columns(row_block * 128, column_block * 128, BY_ROWS)
    inside = (rows < n_rows)[:, None] & (columns < n_columns)[None, :]
    gl.store(values + first + rows[:, None] * n_columns + columns[None, :], numbers.to(values.dtype.element_ty), inside)
    numbers = gl.convert_layout(numbers, BY_COLUMNS)
    rows, columns = rows_and_columns(row_block * 128, column_block * 128, BY_COLUMNS)
    inside = (rows < n_rows)[:, None] & (columns < n_columns)[None, :]
    targets = transposed + first + columns[None, :] * n_rows + rows[:, None]
    gl.store(targets, numbers.to(values.dtype.element_ty), inside)
    row_blocks = gl.cdiv(n_rows, 128)
    column_blocks = gl.cdiv(n_columns, 128)
    scale = reciprocal(factor)
    gl.store(scales + (matrix * row_blocks + row_block) * column_blocks + column_block, scale)
    gl.store(transposed_scales + (matrix * column_blocks + column_block) * row_blocks + row_block, scale)
