"""AdamW over one stack of matrices in one launch, which leaves its FP8 copies behind (arXiv 2412.19437, section 3.3.2).

A program steps one block of 128 rows by 128 columns, which share a scale. It goes through them in strips of 32 rows:
only the new weights of all four have to be held until their largest magnitude is known, which leaves room for a second
program to load meanwhile.
"""

# Kernels are typed by what they are compiled for, and their compile-time constants are capitals.
# mypy: allow-untyped-defs
# ruff: noqa: N803

from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl

from lightning_modules.precision.kernels.layouts import Copy
from lightning_modules.precision.kernels.rounding import (
    NUM_WARPS,
    factor_for,
    larger,
    rounding_weights_to,
    stack_strips,
    store_block_scale,
    store_both_ways,
)

# A strip in registers: a thread holds four numbers of each of four rows, a warp whole rows.
STRIP = gl.constexpr(
    gl.DistributedLinearLayout(
        [[0, 1], [0, 2], [1, 0], [2, 0]],
        [[0, 4], [0, 8], [0, 16], [0, 32], [0, 64]],
        [[4, 0], [8, 0], [16, 0]],
        [],
        [32, 128],
    )
)
# Two programs a multiprocessor.
REGISTERS = 128


def step_and_quantise(
    master: Tensor,
    gradient: Tensor,
    mean: Tensor,
    square: Tensor,
    copy: Copy,
    decay: float,
    scale: Tensor,
    *numbers: float,
) -> None:
    """One step of a stack of matrices [(E,) N, K], whose copy follows.

    Args:
        master: FP32, like all that follow contiguous.
        gradient: of any type.
        mean: the first moment.
        square: the second moment.
        copy: what is filled with the new weight.
        decay: of the weight.
        scale: of the gradient, a scalar on the GPU.
        numbers: as the kernel names them, from `rate` on.
    """
    step[(copy.layouts.scales.numel(),)](
        master,
        gradient,
        mean,
        square,
        *copy.layouts,
        *master.shape[-2:],
        decay,
        scale,
        *numbers,
        **rounding_weights_to(copy.scaling),
        num_warps=NUM_WARPS,
        maxnreg=REGISTERS,
    )


@gluon.jit
def step(
    masters,  # [stack, n_rows, n_columns] FP32, row-major, like the three that follow
    gradients,
    means,
    squares,
    values,  # [stack, n_rows, n_columns] E4M3, row-major
    scales,  # [stack, row blocks, column blocks], row-major
    transposed,  # [stack, n_columns, n_rows] E4M3, row-major
    transposed_scales,  # [stack, column blocks, row blocks], row-major
    n_rows,
    n_columns,
    decay,
    scale,
    rate,
    beta1,
    beta2,
    epsilon,
    correction1,
    root_correction2,
    LARGEST: gl.constexpr,
    SMALLEST_AMAX: gl.constexpr,
    POWER: gl.constexpr,
):
    """One step of a block of FP32 masters, and its quantised copies; arithmetic as in `adamw.step`."""
    row_blocks = gl.cdiv(n_rows, 128)
    column_blocks = gl.cdiv(n_columns, 128)
    column_block = gl.program_id(0) % column_blocks
    row_block = gl.program_id(0) // column_blocks % row_blocks
    matrix = gl.program_id(0) // (column_blocks * row_blocks)
    first = matrix.to(gl.int64) * n_rows * n_columns
    states = (masters + first, gradients + first, means + first, squares + first)
    numbers = (gl.load(scale), rate * decay, rate / correction1, beta1, beta2, epsilon, root_correction2)
    place = (row_block * 128, column_block * 128, n_rows, n_columns)
    strip0 = _step(states, numbers, place, 0)
    strip1 = _step(states, numbers, place, 1)
    strip2 = _step(states, numbers, place, 2)
    strip3 = _step(states, numbers, place, 3)
    magnitudes = larger(larger(gl.abs(strip0), gl.abs(strip1)), larger(gl.abs(strip2), gl.abs(strip3)))
    amax = gl.reduce(gl.reduce(magnitudes, 1, larger), 0, larger)
    factor = factor_for(amax, LARGEST, SMALLEST_AMAX, POWER)
    dtype: gl.constexpr = values.dtype.element_ty
    rounded = stack_strips(
        (strip0 * factor).to(dtype),
        (strip1 * factor).to(dtype),
        (strip2 * factor).to(dtype),
        (strip3 * factor).to(dtype),
    )
    store_both_ways(rounded, place[0], place[1], values + first, transposed + first, n_rows, n_columns)
    store_block_scale(factor, scales, transposed_scales, matrix, row_block, column_block, row_blocks, column_blocks)


@gluon.jit
def _step(states, numbers, place, NUMBER: gl.constexpr):
    """Step strip NUMBER of a block; returns its new weights."""
    masters, gradients, means, squares = states
    scale, shrinkage, rate, beta1, beta2, epsilon, root_correction2 = numbers
    first_row, first_column, n_rows, n_columns = place
    rows = (first_row + NUMBER * 32 + gl.arange(0, 32, gl.SliceLayout(1, STRIP)))[:, None]
    columns = (first_column + gl.arange(0, 128, gl.SliceLayout(0, STRIP)))[None, :]
    inside = (rows < n_rows) & (columns < n_columns)
    at = rows * n_columns + columns
    gradient = gl.load(gradients + at, inside, other=0.0).to(gl.float32) * scale
    weight = gl.load(masters + at, inside, other=0.0)
    mean = gl.load(means + at, inside, other=0.0).to(gl.float32)
    square = gl.load(squares + at, inside, other=0.0).to(gl.float32)
    mean += (1 - beta1) * (gradient - mean)
    square = beta2 * square + (1 - beta2) * gradient * gradient
    weight *= 1 - shrinkage
    weight -= rate * mean / (gl.sqrt(square) / root_correction2 + epsilon)
    gl.store(masters + at, weight, inside)
    gl.store(means + at, mean.to(means.dtype.element_ty), inside)
    gl.store(squares + at, square.to(squares.dtype.element_ty), inside)
    return weight
