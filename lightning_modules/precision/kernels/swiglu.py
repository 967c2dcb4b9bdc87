"""Kernels of SwiGLU between two FP8 products: from the first one's output to the other's quantised input, and back.

Rows count by gates, where they have any: behind the activation, and before the product that is linear.
"""

# Kernels are typed by what they are compiled for, and their compile-time constants are capitals.
# mypy: allow-untyped-defs
# ruff: noqa: N803

from triton.experimental import gluon
from triton.experimental.gluon import language as gl

from lightning_modules.precision.kernels.rounding import (
    BY_ROWS,
    ROWS_OF_STRIP,
    holds_rows,
    rows_and_columns,
    stack_strips,
    store_tiles,
)


@gluon.jit
def _weights_of_rows(gates, choices, rows, n_rows):
    """Which of `rows` stand for a choice, and what they count."""
    if choices is None:
        is_real = rows < n_rows
        weight = gl.where(is_real, 1.0, 0.0)
    else:
        choice = gl.load(choices + rows)
        is_real = choice >= 0
        weight = gl.load(gates + choice, is_real, other=0.0)
    return is_real, weight


@gluon.jit
def _sigmoid(x):
    """To about FP32's last bit, in few instructions: these kernels have more to compute than to move."""
    power = gl.inline_asm_elementwise(
        "ex2.approx.ftz.f32 $0, $1;", "=f,f", [x * -1.4426950408889634], gl.float32, True, 1
    )
    return gl.inline_asm_elementwise("rcp.approx.ftz.f32 $0, $1;", "=f,f", [1.0 + power], gl.float32, True, 1)


@gluon.jit
def forward(
    gate_up,  # [stored rows, 2 · width], the gate's half first
    gates,  # [n_choices] FP32; None: all rows count once
    choices,  # [stored rows] int32 from `tiles.plan_rows`; None where there are no gates
    values,  # [stored rows, width], as in `store_tiles`, like all that follow
    scales,
    transposed,
    transposed_scales,
    n_rows,
    stored_rows,
    width,
    tile_stride,
    column_stride,
    scale_stride,
    LARGEST: gl.constexpr,
    SMALLEST_AMAX: gl.constexpr,
    POWER: gl.constexpr,
):
    """Quantise silu(gate) · up, times what a row counts; `width` is a multiple of 128."""
    tile = gl.program_id(1)
    column_tile = gl.program_id(0)
    rows, columns = rows_and_columns(tile * 128, column_tile * 128, BY_ROWS)
    is_real, weight = _weights_of_rows(gates, choices, rows, n_rows)
    if holds_rows(choices, tile, n_rows):
        sources = gate_up + rows[:, None].to(gl.int64) * (2 * width) + columns[None, :]
        gate = gl.load(sources, is_real[:, None], other=0.0).to(gl.float32)
        up = gl.load(sources + width, is_real[:, None], other=0.0).to(gl.float32)
        store_tiles(
            gate * _sigmoid(gate) * up * weight[:, None],
            tile,
            column_tile,
            (values, scales, transposed, transposed_scales),
            (stored_rows, width),
            (tile_stride, column_stride, scale_stride),
            (None, None, None),
            LARGEST,
            SMALLEST_AMAX,
            POWER,
        )


@gluon.jit
def backward(
    gradient,  # [stored rows, width]
    gate_up,  # [stored rows, 2 · width]
    gates,  # [n_choices] FP32; None: all rows count once
    choices,  # [stored rows] int32; None where there are no gates
    of_gates,  # [width / 128, stored rows] FP32; None where there are no gates
    values,  # [stored rows, 2 · width], as in `store_tiles`, like all that follow
    scales,
    transposed,
    transposed_scales,
    n_rows,
    stored_rows,
    width,
    tile_stride,
    column_stride,
    scale_stride,
    LARGEST: gl.constexpr,
    SMALLEST_AMAX: gl.constexpr,
    POWER: gl.constexpr,
):
    """Quantise the gradient of `gate_up`, and sum up that of each row's gate over 128 columns.

    The gate's and the up projection's gradients of the same columns are two programs': together they would need more
    registers than there are, and the second one finds what it reads in the cache.
    """
    tile = gl.program_id(1)
    column_tile = gl.program_id(0) // 2
    is_up = gl.program_id(0) % 2
    if holds_rows(choices, tile, n_rows):
        operands = (gradient, gate_up, gates, choices)
        place = (tile, column_tile, n_rows, width)
        if is_up != 0:
            numbers = stack_strips(
                _of_up(operands, place, 0),
                _of_up(operands, place, 1),
                _of_up(operands, place, 2),
                _of_up(operands, place, 3),
            )
        else:
            of_tile = None if gates is None else of_gates + column_tile * stored_rows
            numbers = stack_strips(
                _of_gate(operands, of_tile, place, 0),
                _of_gate(operands, of_tile, place, 1),
                _of_gate(operands, of_tile, place, 2),
                _of_gate(operands, of_tile, place, 3),
            )
        store_tiles(
            gl.convert_layout(numbers, BY_ROWS, assert_trivial=True),
            tile,
            column_tile + is_up * (width // 128),
            (values, scales, transposed, transposed_scales),
            (stored_rows, 2 * width),
            (tile_stride, column_stride, scale_stride),
            (None, None, None),
            LARGEST,
            SMALLEST_AMAX,
            POWER,
        )


@gluon.jit
def _of_up(operands, place, STRIP: gl.constexpr):
    """The gradient of 32 rows of the up projection's output."""
    outer, gate, _, weight, _ = _strip(operands, place, STRIP)
    return outer * gate * _sigmoid(gate) * weight[:, None]


@gluon.jit
def _of_gate(operands, of_gates, place, STRIP: gl.constexpr):
    """The gradient of 32 rows of the gate projection's output; `of_gates` gets that of what they count."""
    outer, gate, ups, weight, inside = _strip(operands, place, STRIP)
    share = _sigmoid(gate)
    numbers = outer * gl.load(ups, inside[:, None], other=0.0).to(gl.float32) * share
    if of_gates is not None:
        gl.store(of_gates + _rows(place, STRIP), gl.sum(numbers * gate, 1))
    return numbers * (1 + gate * (1 - share)) * weight[:, None]


@gluon.jit
def _strip(operands, place, STRIP: gl.constexpr):
    """Of 32 rows the outer gradient, the gate, where the other factor lies, what they count and which are real."""
    gradient, gate_up, gates, choices = operands
    tile, column_tile, n_rows, width = place
    rows = _rows(place, STRIP)
    inside, weight = _weights_of_rows(gates, choices, rows, n_rows)
    columns = (column_tile * 128 + gl.arange(0, 128, gl.SliceLayout(0, ROWS_OF_STRIP)))[None, :]
    row = rows[:, None].to(gl.int64)
    outer = gl.load(gradient + row * width + columns, inside[:, None], other=0.0).to(gl.float32)
    sources = gate_up + row * (2 * width) + columns
    gate = gl.load(sources, inside[:, None], other=0.0).to(gl.float32)
    return outer, gate, sources + width, weight, inside


@gluon.jit
def _rows(place, STRIP: gl.constexpr):
    return place[0] * 128 + STRIP * 32 + gl.arange(0, 32, gl.SliceLayout(1, ROWS_OF_STRIP))
