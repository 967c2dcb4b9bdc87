"""Launches of the Triton kernels: grids, block sizes, and how the operands lie.

Imported when the first kernel runs, for Triton is only there where a GPU is.
"""

from functools import cache

import torch
import triton
from torch import Tensor
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor as GluonDescriptor
from triton.tools.tensor_descriptor import TensorDescriptor

from lightning_modules.precision.emulation import BLOCK, E4M3_MAX, SMALLEST_AMAX
from lightning_modules.precision.kernels import row_products, tiles, token_products

RANGE = {"LARGEST": E4M3_MAX, "SMALLEST_AMAX": SMALLEST_AMAX}
LINES = 64  # rows, or columns, of 128 numbers that one program quantises


def quantise_tiles(x: Tensor, values: Tensor, scales: Tensor) -> None:
    """Fill values [n_rows, stored columns] and scales [tiles, n_rows] from x [n_rows, n_columns] of any strides."""
    if values.numel() == 0:
        return
    grid = (triton.cdiv(values.shape[0], LINES), scales.shape[0])
    tiles.quantise_tiles[grid](
        x, values, scales, *x.shape, values.shape[1], *x.stride(), **RANGE, ROWS=LINES, TILE=BLOCK, num_warps=4
    )


def quantise_grouped_tiles(rows: Tensor, offsets: Tensor, values: Tensor, scales: Tensor) -> None:
    """Fill values [K, 128 · tiles] and scales [tiles, K] from rows [R, K] of any strides."""
    n_tiles, n_columns = scales.shape
    grid = (n_tiles, triton.cdiv(n_columns, LINES))
    tiles.quantise_grouped_tiles[grid](
        rows,
        _plan(offsets, n_tiles),
        values,
        scales,
        n_columns,
        n_tiles,
        *rows.stride(),
        **RANGE,
        COLUMNS=LINES,
        TILE=BLOCK,
        num_warps=4,
    )


def quantise_blocks(weight: Tensor, values: Tensor, scales: Tensor) -> None:
    """Fill values [E, N, K] and scales [E, ⌈N⌉, ⌈K⌉], or both without E, from a weight of any strides."""
    stack = weight if weight.dim() == 3 else weight[None]
    row_blocks, column_blocks = scales.shape[-2:]
    grid = (stack.shape[0] * row_blocks, column_blocks)
    tiles.quantise_blocks[grid](
        stack, values, scales, *stack.shape[1:], *stack.stride(), **RANGE, BLOCK=BLOCK, num_warps=4
    )


def multiply_rows(
    rows: Tensor, row_scales: Tensor, weight: Tensor, weight_scales: Tensor, offsets: Tensor, output: Tensor
) -> None:
    """Fill output [R, N] with rows [R, K] by their expert's weight [E, N, K], transposed; all but scales row-major."""
    n_rows, inner = rows.shape
    if n_rows == 0:
        return
    n_experts, n_columns, _ = weight.shape
    n_tiles = n_rows // BLOCK + n_experts
    swizzled = gl.NVMMASharedLayout.get_default_for([BLOCK, BLOCK], gl.float8e4nv)
    n_programs = min(_multiprocessors(rows.device), n_tiles * triton.cdiv(n_columns, BLOCK))
    row_products.multiply_rows[(n_programs,)](
        GluonDescriptor.from_tensor(rows, [BLOCK // 2, BLOCK], swizzled),
        GluonDescriptor.from_tensor(weight.view(-1, inner), [BLOCK, BLOCK], swizzled),
        row_scales.mT.contiguous(),
        weight_scales,
        _plan(offsets, n_tiles),
        output,
        n_tiles,
        n_columns,
        inner,
        n_rows,
        GROUP=16,
        STAGES=5,
        num_warps=4,
        maxnreg=168,
    )


def multiply_tokens(
    gradient: Tensor, gradient_scales: Tensor, rows: Tensor, row_scales: Tensor, offsets: Tensor, output: Tensor
) -> None:
    """Fill output [E, N, K] with gradient [N, tokens] by rows [K, tokens], expert by expert; all row-major."""
    n_experts, n_rows, n_columns = output.shape
    block_m, block_n = BLOCK // 2, BLOCK
    grid = (n_experts * triton.cdiv(n_rows, block_m) * triton.cdiv(n_columns, block_n),)
    token_products.multiply_tokens[grid](
        TensorDescriptor.from_tensor(gradient, [block_m, BLOCK]),
        TensorDescriptor.from_tensor(rows, [block_n, BLOCK]),
        gradient_scales,
        row_scales,
        offsets,
        output,
        n_experts,
        n_rows,
        n_columns,
        BLOCK_M=block_m,
        BLOCK_N=block_n,
        TILE=BLOCK,
        EXPERTS=triton.next_power_of_2(n_experts),
        num_warps=4,
        num_stages=3,
        maxnreg=168,  # three programs a multiprocessor: while one scales, others multiply
    )


def _plan(offsets: Tensor, n_tiles: int) -> Tensor:
    """Whose rows each tile of 128 holds [n_tiles, 3]: expert, first row, and where the expert's rows end."""
    plan = torch.empty(n_tiles, 3, dtype=torch.int32, device=offsets.device)
    experts = triton.next_power_of_2(offsets.shape[0])
    tiles.plan_tiles[(n_tiles,)](offsets, plan, offsets.shape[0], TILE=BLOCK, EXPERTS=experts, num_warps=1)
    return plan


@cache
def _multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count
