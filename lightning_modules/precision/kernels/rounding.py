"""How the kernels round to E4M3 in tiles and blocks of 128, and how they write it (arXiv 2412.19437, section 3.3.2).

Eight warps hold 128×128 numbers. The tensor cores want FP8 operands with the side they sum over next to each other in
memory, so everything is written twice: row by row, and column by column. Stores are the dearest part, and cost by
their number: rounded numbers change hands first, so that a thread writes sixteen of a line at a time, and eight
threads all of it.
"""

# Kernels are typed by what they are compiled for, and their compile-time constants are capitals.
# mypy: allow-untyped-defs
# ruff: noqa: N803

from typing import Any

import triton.language as tl
from triton.experimental import gluon
from triton.experimental.gluon import language as gl

from lightning_modules.precision.emulation import E4M3_MAX, SMALLEST_AMAX
from lightning_modules.precision.scaling import Scaling

TILE = 128
NUM_WARPS = 8


def rounding_to(scaling: Scaling) -> dict[str, Any]:
    """The constants of `factor_for`, for rows and columns."""
    return _rounding(power=1 if scaling is Scaling.ROWWISE else 0)


def rounding_weights_to(scaling: Scaling) -> dict[str, Any]:
    """The constants of `factor_for`, for weights.

    By rows, powers of 16: products over features pause where the factor changes from one block to the next.
    """
    return _rounding(power=4 if scaling is Scaling.ROWWISE else 0)


def _rounding(power: int) -> dict[str, Any]:
    return {"LARGEST": E4M3_MAX, "SMALLEST_AMAX": SMALLEST_AMAX, "POWER": power}


# As numbers of two or four bytes are read: eight of a row by a thread.
BY_ROWS = gl.constexpr(
    gl.DistributedLinearLayout(
        [[0, 1], [0, 2], [0, 4], [16, 0], [32, 0], [64, 0]],
        [[0, 8], [0, 16], [0, 32], [0, 64], [1, 0]],
        [[2, 0], [4, 0], [8, 0]],
        [],
        [TILE, TILE],
    )
)
# The same of a quarter of a tile's rows.
ROWS_OF_STRIP = gl.constexpr(
    gl.DistributedLinearLayout(
        [[0, 1], [0, 2], [0, 4], [16, 0]],
        [[0, 8], [0, 16], [0, 32], [0, 64], [1, 0]],
        [[2, 0], [4, 0], [8, 0]],
        [],
        [TILE // 4, TILE],
    )
)
# As bytes are written: sixteen of a row, or of a column.
ROWS_OUT = gl.constexpr(
    gl.DistributedLinearLayout(
        [[0, 1], [0, 2], [0, 4], [0, 8], [32, 0], [64, 0]],
        [[0, 16], [0, 32], [0, 64], [1, 0], [2, 0]],
        [[4, 0], [8, 0], [16, 0]],
        [],
        [TILE, TILE],
    )
)
COLUMNS_OUT = gl.constexpr(
    gl.DistributedLinearLayout(
        [[1, 0], [2, 0], [4, 0], [8, 0], [0, 1], [0, 2]],
        [[16, 0], [32, 0], [64, 0], [0, 4], [0, 8]],
        [[0, 16], [0, 32], [0, 64]],
        [],
        [TILE, TILE],
    )
)
ONE_EACH = gl.constexpr(gl.BlockedLayout([1], [32], [NUM_WARPS], [0]))


@gluon.jit
def larger(a, b):
    """The larger of two numbers; one that is not a number stays."""
    return gl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@gluon.jit
def _larger_bits(a, b):
    return gl.maximum(a, b)


@gluon.jit
def largest_magnitude(numbers, axis: gl.constexpr):
    """Of BF16 or FP32 numbers along an axis, in FP32; what is not a number counts as the largest.

    BF16 numbers are looked at as bits, which are ordered as magnitudes are: so they stay packed in their registers.
    """
    if numbers.dtype == gl.bfloat16:
        bits = (numbers.to(gl.int16, bitcast=True).to(gl.int32) & 0x7FFF) << 16
        amax = gl.reduce(bits, axis, _larger_bits).to(gl.float32, bitcast=True)
    else:
        amax = gl.reduce(gl.abs(numbers), axis, larger)
    return amax


@gluon.jit
def factor_for(amax, LARGEST: gl.constexpr, SMALLEST_AMAX: gl.constexpr, POWER: gl.constexpr):
    """What brings `amax` to the largest E4M3 number, or as near as a power of 2^POWER does without passing it."""
    factor = gl.div_rn(gl.to_tensor(LARGEST), larger(amax, gl.to_tensor(SMALLEST_AMAX)))
    if POWER != 0:
        exponent = factor.to(gl.int32, bitcast=True) >> 23
        power = ((exponent - (exponent + 1) % POWER) << 23).to(gl.float32, bitcast=True)
        factor = gl.where(factor == factor, power, factor)
    return factor


@gluon.jit
def reciprocal(factor):
    """One over `factor`, rounded once."""
    return gl.div_rn(gl.to_tensor(1.0), factor)


@gluon.jit
def factors_for(
    amax,
    places,
    n_places,
    layout: gl.constexpr,
    LARGEST: gl.constexpr,
    SMALLEST_AMAX: gl.constexpr,
    POWER: gl.constexpr,
):
    """Factors of 128 maxima, in `layout`; the reciprocals of the first `n_places` are stored from `places` on.

    Each is computed by two threads, and not by all that hold numbers of its tile.
    """
    factor = factor_for(gl.convert_layout(amax, ONE_EACH), LARGEST, SMALLEST_AMAX, POWER)
    numbers = gl.arange(0, 128, ONE_EACH)
    gl.store(places + numbers, reciprocal(factor), numbers < n_places)
    return gl.convert_layout(factor, layout)


@gluon.jit
def rows_and_columns(row, column, layout: gl.constexpr):
    """Numbers of 128 rows and 128 columns from `row` and `column` on, for tiles in `layout`."""
    rows = row + gl.arange(0, 128, gl.SliceLayout(1, layout))
    return rows, column + gl.arange(0, 128, gl.SliceLayout(0, layout))


@gluon.jit
def stack_strips(strip0, strip1, strip2, strip3):
    """128×128 numbers, as many a thread, from four times 32 rows of them."""
    even = gl.join(strip0, strip2)
    odd = gl.join(strip1, strip3)
    return gl.reshape(gl.permute(gl.join(even, odd), (2, 3, 0, 1)), [128, 128])


@gluon.jit
def numbers_of_tile(tile):
    """Numbers of a tile's rows or columns."""
    return tile * 128 + gl.arange(0, 128, ONE_EACH)


@gluon.jit
def holds_rows(choices, tile, n_rows):
    """Whether any row of a tile stands for something: its first one does, then.

    `choices` are those of `blockwise.Plan`; None: rows up to `n_rows` do.
    """
    return tile * 128 < n_rows if choices is None else gl.load(choices + tile * 128) >= 0


@gluon.jit
def store_tiles(
    numbers,
    tile,
    column_tile,
    targets,
    sizes,
    strides,
    maxima,
    LARGEST: gl.constexpr,
    SMALLEST_AMAX: gl.constexpr,
    POWER: gl.constexpr,
):
    """Round 128×128 numbers twice: by rows of 128 columns, and by columns of 128 rows, which are written transposed.

    Where whole rows and columns share a scale, one program of each stores it.

    Args:
        numbers: BF16 or FP32, BY_ROWS.
        tile: of rows.
        column_tile: of columns.
        targets: values [stored rows, n_columns] and scales [column tiles, stored rows], row-major; transposed [row
            tiles, n_columns, 128], numbers of a tile side by side, or None if it is not wanted, and its scales [row
            tiles, n_columns].
        sizes: stored rows and n_columns.
        strides: how far tiles of `transposed` lie apart, columns of a tile, and rows of its scales.
        maxima: largest magnitudes of whole rows [...] and of whole columns [n_columns], FP32, and where those of the
            tile's rows lie, ONE_EACH, -1: nowhere; None, None, None: the tile's own count.
        LARGEST: see `factor_for`, like those that follow.
        SMALLEST_AMAX: see `factor_for`.
        POWER: see `factor_for`.
    """
    values, scales, transposed, transposed_scales = targets
    stored_rows, n_columns = sizes
    tile_stride, column_stride, scale_stride = strides
    row_maxima, column_maxima, maxima_places = maxima
    if row_maxima is None:
        places = scales + column_tile * stored_rows + tile * 128
        amax = largest_magnitude(numbers, 1)
        n_places = 128
    else:
        places = scales + tile * 128
        amax = gl.load(row_maxima + maxima_places, maxima_places >= 0, other=0.0)
        n_places = gl.where(column_tile == 0, 128, 0)
    layout: gl.constexpr = gl.SliceLayout(1, BY_ROWS)
    of_rows = factors_for(amax, places, n_places, layout, LARGEST, SMALLEST_AMAX, POWER)
    rounded = (numbers.to(gl.float32) * of_rows[:, None]).to(values.dtype.element_ty)
    rows, columns = rows_and_columns(tile * 128, column_tile * 128, ROWS_OUT)
    targets = values + rows[:, None].to(gl.int64) * n_columns + columns[None, :]
    gl.store(targets, gl.convert_layout(rounded, ROWS_OUT), (columns < n_columns)[None, :])
    if transposed is not None:
        numbers = gl.convert_layout(numbers, COLUMNS_OUT)
        if column_maxima is None:
            amax = largest_magnitude(numbers, 0)
            places = transposed_scales + tile * scale_stride + column_tile * 128
            n_places = scale_stride - column_tile * 128
        else:
            column = numbers_of_tile(column_tile)
            amax = gl.load(column_maxima + column, column < n_columns, other=0.0)
            places = transposed_scales + column_tile * 128
            n_places = gl.where(tile == 0, scale_stride - column_tile * 128, 0)
        along: gl.constexpr = gl.SliceLayout(0, COLUMNS_OUT)
        of_columns = factors_for(amax, places, n_places, along, LARGEST, SMALLEST_AMAX, POWER)
        rounded = (numbers.to(gl.float32) * of_columns[None, :]).to(values.dtype.element_ty)
        rows, columns = rows_and_columns(0, column_tile * 128, COLUMNS_OUT)
        targets = transposed + tile.to(gl.int64) * tile_stride + columns[None, :].to(gl.int64) * column_stride
        gl.store(targets + rows[:, None], rounded, (columns < n_columns)[None, :])


@gluon.jit
def raise_maxima(numbers, rows, is_row, columns, row_maxima, column_maxima, n_columns):
    """Let the maxima of whole rows and columns, as bits of FP32, know those of a tile; what is no number is largest."""
    of_rows = largest_magnitude(numbers, 1).to(gl.int32, bitcast=True)
    gl.atomic_max(row_maxima + rows, of_rows, is_row, sem="relaxed")
    of_columns = largest_magnitude(numbers, 0).to(gl.int32, bitcast=True)
    gl.atomic_max(column_maxima + columns, of_columns, columns < n_columns, sem="relaxed")


@gluon.jit
def store_both_ways(
    rounded,  # 128×128 E4M3, in any layout
    first_row,
    first_column,
    values,  # [n_rows, n_columns], row-major
    transposed,  # [n_columns, n_rows], rows `transposed_stride` apart
    n_rows,
    n_columns,
    transposed_stride,
):
    """Write a square block of a matrix, and of its transpose."""
    rows, columns = rows_and_columns(first_row, first_column, ROWS_OUT)
    inside = (rows < n_rows)[:, None] & (columns < n_columns)[None, :]
    targets = values + rows[:, None] * n_columns + columns[None, :]
    gl.store(targets, gl.convert_layout(rounded, ROWS_OUT), inside)
    rows, columns = rows_and_columns(first_row, first_column, COLUMNS_OUT)
    inside = (rows < n_rows)[:, None] & (columns < n_columns)[None, :]
    targets = transposed + columns[None, :] * transposed_stride + rows[:, None]
    gl.store(targets, gl.convert_layout(rounded, COLUMNS_OUT), inside)


@gluon.jit
def store_block_scale(
    factor,
    scales,  # [stack, row_blocks, column_blocks], row-major
    transposed_scales,  # [stack, column_blocks, row blocks], rows `transposed_stride` apart
    place,  # matrix, row block and column block
    row_blocks,
    column_blocks,
    transposed_stride,
):
    """Write what gives a block's numbers back, for a stack of matrices and for their transposes."""
    matrix, row_block, column_block = place
    scale = reciprocal(factor)
    gl.store(scales + (matrix * row_blocks + row_block) * column_blocks + column_block, scale)
    gl.store(transposed_scales + (matrix * column_blocks + column_block) * transposed_stride + row_block, scale)
