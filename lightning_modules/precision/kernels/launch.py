"""Launches of the FP8 kernels: grids, block sizes, and how the operands lie.

Imported when the first kernel runs, for Triton is only there where a GPU is.
"""

from functools import cache

import torch
import triton
from torch import Tensor
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from lightning_modules.precision.emulation import BLOCK
from lightning_modules.precision.kernels import plans, row_products, tiles, token_products
from lightning_modules.precision.kernels import swiglu as activation
from lightning_modules.precision.kernels.layouts import shares_whole_rows
from lightning_modules.precision.kernels.rounding import NUM_WARPS, rounding_to, rounding_weights_to
from lightning_modules.precision.scaling import Scaling

# Choices of experts that one program counts and lays out.
COUNTED_CHOICES = 256
# Registers of a thread when a product begins; its groups then share them out among themselves.
REGISTERS = 168
# Of one that differentiates SwiGLU: two programs fit.
SWIGLU_REGISTERS = 128
# Of a thread that quantises: so few that three programs fit, where there are many; few programs run faster with more.
GATHERING_REGISTERS = 80


def plan_choices(indices: Tensor, choices: Tensor, places: Tensor, experts: Tensor, spans: Tensor) -> None:
    """Fill the four of `blockwise.Plan` for experts in any order, or below zero."""
    n_choices, n_experts, n_tiles = indices.numel(), spans.shape[0], experts.shape[0]
    n_blocks = triton.cdiv(n_choices, COUNTED_CHOICES)
    counts = places.new_empty(n_blocks, n_experts)
    shape = {"BLOCK": COUNTED_CHOICES, "EXPERTS": triton.next_power_of_2(n_experts)}
    plans.count_choices[(n_blocks,)](indices, counts, n_choices, n_experts, **shape)
    choices.fill_(-1)
    plans.plan_choices[(n_blocks,)](
        indices,
        counts,
        choices,
        places,
        experts,
        spans,
        n_choices,
        n_experts,
        n_blocks,
        n_tiles,
        **shape,
        TILE=BLOCK,
        COUNTED=64,
        TILES=triton.next_power_of_2(triton.cdiv(n_tiles, n_blocks)),
        num_warps=8,
    )


def plan_rows(offsets: Tensor, choices: Tensor, places: Tensor, experts: Tensor, spans: Tensor) -> None:
    """Fill the four of `blockwise.Plan` for rows in order of experts; what lies behind the last is nobody's."""
    n_experts = offsets.shape[0]
    places.fill_(-1)
    plans.plan_rows[(experts.shape[0],)](
        offsets,
        choices,
        places,
        experts,
        spans,
        n_experts,
        TILE=BLOCK,
        EXPERTS=triton.next_power_of_2(n_experts),
        num_warps=1,
    )


def quantise_rows(
    x: Tensor,
    choices: Tensor | None,
    n_chosen: int,
    values: Tensor,
    scales: Tensor,
    transposed: Tensor | None,
    transposed_scales: Tensor | None,
    scaling: Scaling,
) -> None:
    """Fill the four of `blockwise.BothLayouts`, or the first two, from rows or tokens."""
    x = x if x.stride(1) == 1 else x.contiguous()
    n_tiles, column_tiles = values.shape[0] // BLOCK, triton.cdiv(x.shape[1], BLOCK)
    if n_tiles:
        row_maxima, column_maxima = None, None
        if shares_whole_rows(scaling, choices):
            # Several experts' tokens are all somebody's; other rows need not be.
            row_maxima, column_maxima = _maxima(x, choices if n_chosen == 1 else None)
        tiles.quantise_rows[(column_tiles, n_tiles)](
            x,
            choices,
            values,
            scales,
            transposed,
            transposed_scales,
            *x.shape,
            values.shape[0],
            *_strides(transposed, transposed_scales),
            row_maxima,
            column_maxima,
            x.stride(0),
            n_chosen,
            **rounding_to(scaling),
            num_warps=NUM_WARPS,
            maxnreg=None if choices is None else GATHERING_REGISTERS,
        )


def _maxima(x: Tensor, choices: Tensor | None) -> tuple[Tensor, Tensor]:
    """The largest magnitudes of the rows of `x` [M, K], and of its columns: of those that `choices` name, or of all.

    There are whole tiles of rows'.
    """
    row_tiles, column_tiles = triton.cdiv(x.shape[0], BLOCK), triton.cdiv(x.shape[1], BLOCK)
    # Of FP32 numbers that are not negative the larger one has the larger bits.
    bits = torch.zeros(row_tiles * BLOCK + x.shape[1], dtype=torch.int32, device=x.device)
    of_rows, of_columns = bits[: row_tiles * BLOCK], bits[row_tiles * BLOCK :]
    nothing = None, None, None, None
    tiles.quantise_rows[(column_tiles, row_tiles if choices is None else choices.shape[0] // BLOCK)](
        x,
        choices,
        *nothing,
        *x.shape,
        0,
        *_strides(None, None),
        of_rows,
        of_columns,
        x.stride(0),
        1,
        **rounding_to(Scaling.ROWWISE),
        num_warps=NUM_WARPS,
    )
    return of_rows.view(torch.float32), of_columns.view(torch.float32)


def quantise_blocks(
    weight: Tensor,
    values: Tensor,
    scales: Tensor,
    transposed: Tensor,
    transposed_scales: Tensor,
    scaling: Scaling,
) -> None:
    """Fill the four of `blockwise.BothLayouts` from a weight [(E,) N, K]."""
    n_matrices = 1 if weight.dim() == 2 else weight.shape[0]
    row_blocks, column_blocks = scales.shape[-2:]
    tiles.quantise_blocks[(column_blocks, n_matrices * row_blocks)](
        weight.contiguous(),
        values,
        scales,
        transposed,
        transposed_scales,
        *weight.shape[-2:],
        **rounding_weights_to(scaling),
        num_warps=NUM_WARPS,
    )


def swiglu(
    gate_up: Tensor,
    gates: Tensor | None,
    choices: Tensor | None,
    values: Tensor,
    scales: Tensor,
    transposed: Tensor,
    transposed_scales: Tensor,
    scaling: Scaling,
) -> None:
    """Fill the four of `blockwise.BothLayouts` with what enters the second product."""
    n_stored, width = values.shape
    activation.forward[(width // BLOCK, n_stored // BLOCK)](
        gate_up,
        gates,
        choices,
        values,
        scales,
        transposed,
        transposed_scales,
        gate_up.shape[0],
        n_stored,
        width,
        *_strides(transposed, transposed_scales),
        **rounding_to(scaling),
        num_warps=NUM_WARPS,
    )


def swiglu_backward(
    gradient: Tensor,
    gate_up: Tensor,
    gates: Tensor | None,
    choices: Tensor | None,
    values: Tensor,
    scales: Tensor,
    transposed: Tensor,
    transposed_scales: Tensor,
    of_rows: Tensor,
    scaling: Scaling,
) -> None:
    """Fill the four of `blockwise.BothLayouts` with the first product's gradient, and that of rows' gates by column."""
    n_stored, width = values.shape[0], gradient.shape[1]
    activation.backward[(2 * width // BLOCK, n_stored // BLOCK)](
        gradient,
        gate_up,
        gates,
        choices,
        of_rows,
        values,
        scales,
        transposed,
        transposed_scales,
        gate_up.shape[0],
        n_stored,
        width,
        *_strides(transposed, transposed_scales),
        **rounding_to(scaling),
        num_warps=NUM_WARPS,
        maxnreg=SWIGLU_REGISTERS,
    )


def multiply_rows(
    rows: Tensor, row_scales: Tensor, weight: Tensor, weight_scales: Tensor, experts: Tensor | None, output: Tensor
) -> None:
    """Fill output [R, N] with rows [P, K] by their expert's weight [(E,) N, K], transposed."""
    if output.numel() == 0:
        return
    inner, n_columns = rows.shape[1], weight.shape[-2]
    n_tiles = rows.shape[0] // BLOCK
    half, swizzled = [BLOCK // 2, BLOCK], _operands()
    row_products.multiply_rows[(min(multiprocessors(rows.device), n_tiles * triton.cdiv(n_columns, 2 * BLOCK)),)](
        TensorDescriptor.from_tensor(rows, half, swizzled),
        TensorDescriptor.from_tensor(weight.reshape(-1, inner), [BLOCK, BLOCK], swizzled),
        TensorDescriptor.from_tensor(output, half, _staging(tuple(half), output.dtype)),
        row_scales,
        weight_scales,
        experts,
        n_tiles,
        n_columns,
        inner,
        GROUP=16,
        STAGES=3 if output.dtype == torch.float32 else 4,
        WHOLE_ROWS=row_scales.shape[0] == 1,
        num_warps=4,
        maxnreg=REGISTERS,
    )


def multiply_tokens(
    gradient: Tensor,
    gradient_scales: Tensor,
    rows: Tensor,
    row_scales: Tensor,
    spans: Tensor,
    output: Tensor,
    squares: Tensor,
) -> None:
    """Fill output [E, N, K] with gradient [tiles, N, 128] by rows [tiles, K, 128], expert by expert.

    `squares`, 128 numbers a multiprocessor, will add up to the sum of its squares.
    """
    n_experts, n_rows, n_columns = output.shape
    has_whole_rows = row_scales.shape[0] == 1
    half, swizzled = [1, BLOCK // 2, BLOCK], _operands()
    token_products.multiply_tokens[(multiprocessors(rows.device),)](
        TensorDescriptor.from_tensor(gradient.view(-1, BLOCK), [BLOCK // 2, BLOCK], swizzled),
        TensorDescriptor.from_tensor(rows.view(-1, BLOCK), [BLOCK, BLOCK], swizzled),
        gradient_scales,
        row_scales if has_whole_rows else TensorDescriptor.from_tensor(row_scales, [1, 2 * BLOCK], _scales()),
        spans,
        TensorDescriptor.from_tensor(output, half, _staging(tuple(half), output.dtype)),
        squares,
        n_experts,
        rows.shape[0],
        n_rows,
        n_columns,
        STAGES=3,
        STAGED=1 if output.dtype == torch.float32 else 2,
        WHOLE_GRADIENT=gradient_scales.shape[0] == 1,
        WHOLE_ROWS=has_whole_rows,
        num_warps=4,
        maxnreg=REGISTERS,
    )


# Layouts take the host longer to make than a launch.
@cache
def _operands() -> gl.NVMMASharedLayout:
    """How E4M3 operands lie in shared memory."""
    return gl.NVMMASharedLayout.get_default_for([BLOCK, BLOCK], gl.float8e4nv)


@cache
def _scales() -> gl.NVMMASharedLayout:
    """How the scales of columns lie there."""
    return gl.NVMMASharedLayout(0, 32, 2)


@cache
def _staging(block: tuple[int, ...], dtype: torch.dtype) -> gl.NVMMASharedLayout:
    """How a block of results lies in shared memory, from where it is sent to its place."""
    return gl.NVMMASharedLayout.get_default_for(list(block), gl.float32 if dtype == torch.float32 else gl.bfloat16)


def _strides(transposed: Tensor | None, scales: Tensor | None) -> tuple[int, int, int]:
    """How far tiles lie apart, columns of a tile, and tiles of scales."""
    if transposed is None or scales is None:
        return 0, 0, 0
    return transposed.stride(0), transposed.stride(1), scales.stride(0)


@cache
def multiprocessors(device: torch.device) -> int:
    """How many programs that fill one each run at a time."""
    return torch.cuda.get_device_properties(device).multi_processor_count
