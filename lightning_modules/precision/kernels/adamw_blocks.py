"""AdamW over many matrices in one launch, which leaves their FP8 copies behind (arXiv 2412.19437, section 3.3.2).

A program steps one block of 128 rows by 128 columns, which share a scale. It goes through them in strips of 32 rows:
only the new weights of all four have to be held until their largest magnitude is known, which leaves room for a second
program to load meanwhile.
"""

# Kernels are typed by what they are compiled for, and their compile-time constants are capitals.
# mypy: allow-untyped-defs
# ruff: noqa: N803

from collections.abc import Sequence

import torch
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
from lightning_modules.precision.kernels.tensor_table import distances

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


class BlockTable:
    """Matrices, and stacks of them, in blocks of 128 rows by 128 columns.

    Args:
        copies: theirs, of one scaling; of a matrix they may be rows of those of a larger one.
    """

    def __init__(self, copies: Sequence[Copy]) -> None:
        self._layouts = tuple(zip(*(copy.layouts for copy in copies), strict=True))
        self._constants = rounding_weights_to(copies[0].scaling)
        device = self._layouts[0][0].device
        counts = torch.tensor([copy.layouts.scales.numel() for copy in copies])
        self._block_tensors = torch.arange(len(copies), dtype=torch.int32).repeat_interleave(counts).to(device)
        self._first_blocks = (counts.cumsum(0) - counts).to(device, torch.int32)
        self._sides = torch.tensor([_sides(copy) for copy in copies], dtype=torch.int32, device=device)
        self._offsets = [distances(layouts).to(device) for layouts in self._layouts]

    def step_and_quantise(
        self,
        states: Sequence[Sequence[Tensor]],
        offsets: Sequence[Tensor],
        decays: Tensor,
        scale: Tensor,
        *numbers: float,
    ) -> None:
        """One step of all of them, which their copies follow.

        Args:
            states: FP32 masters, gradients, first and second moments, all contiguous, each of one type.
            offsets: how far every tensor of each lies from the first one, in numbers.
            decays: weight decay of every master.
            scale: of the gradients, a scalar on the GPU.
            numbers: as the kernel names them, from `rate` on.
        """
        step[(self._block_tensors.numel(),)](
            *(tensors[0] for tensors in states),
            *(layouts[0] for layouts in self._layouts),
            *offsets,
            *self._offsets,
            self._block_tensors,
            self._first_blocks,
            self._sides,
            decays,
            scale,
            *numbers,
            **self._constants,
            num_warps=NUM_WARPS,
            maxnreg=REGISTERS,
        )


def _sides(copy: Copy) -> tuple[int, ...]:
    """Rows and columns, and how far rows of the transpose and of its scales lie apart."""
    values, _, transposed, transposed_scales = copy.layouts
    return *values.shape[-2:], transposed.stride(-2), transposed_scales.stride(-2)


@gluon.jit
def step(
    masters,  # [stack, n_rows, n_columns] FP32, row-major, like the three that follow
    gradients,
    means,
    squares,
    values,  # [stack, n_rows, n_columns] E4M3, row-major
    scales,  # [stack, row blocks, column blocks], row-major
    transposed,  # [stack, n_columns, n_rows] E4M3
    transposed_scales,  # [stack, column blocks, row blocks]
    master_offsets,  # [n_tensors], where each lies from the first, like the seven that follow
    gradient_offsets,
    mean_offsets,
    square_offsets,
    value_offsets,
    scale_offsets,
    transposed_offsets,
    transposed_scale_offsets,
    block_tensors,
    first_blocks,
    sides,
    decays,
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
    tensor = gl.load(block_tensors + gl.program_id(0))
    block = gl.program_id(0) - gl.load(first_blocks + tensor)
    n_rows = _side(sides, tensor, 0)
    n_columns = _side(sides, tensor, 1)
    row_blocks = gl.cdiv(n_rows, 128)
    column_blocks = gl.cdiv(n_columns, 128)
    column_block = block % column_blocks
    row_block = block // column_blocks % row_blocks
    matrix = block // (column_blocks * row_blocks)
    first = matrix.to(gl.int64) * n_rows * n_columns
    states = (
        masters + _place(master_offsets, tensor, 8) + first,
        gradients + _place(gradient_offsets, tensor, 8) + first,
        means + _place(mean_offsets, tensor, 8) + first,
        squares + _place(square_offsets, tensor, 8) + first,
    )
    decay = gl.load(decays + tensor)
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
    rows = values + _place(value_offsets, tensor, 16) + first
    columns = transposed + _place(transposed_offsets, tensor, 16) + first
    store_both_ways(rounded, place[0], place[1], rows, columns, n_rows, n_columns, _side(sides, tensor, 2))
    scales += gl.load(scale_offsets + tensor)
    transposed_scales += gl.load(transposed_scale_offsets + tensor)
    block = (matrix, row_block, column_block)
    scale_stride = gl.load(sides + tensor * 4 + 3)
    store_block_scale(factor, scales, transposed_scales, block, row_blocks, column_blocks, scale_stride)


@gluon.jit
def _side(sides, tensor, NUMBER: gl.constexpr):
    """One of `_sides`, a multiple of 16."""
    return gl.multiple_of(gl.load(sides + tensor * 4 + NUMBER), 16)


@gluon.jit
def _place(offsets, tensor, ALIGNMENT: gl.constexpr):
    return gl.multiple_of(gl.load(offsets + tensor), ALIGNMENT)


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
