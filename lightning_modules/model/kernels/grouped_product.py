"""Every expert's rows by its own matrix in FP32, with row counts that stay on the GPU.

torch's grouped product knows BF16 alone on a GPU; in FP32 it asks the host for every expert's rows, one after another.
"""

# Kernels are typed by what they are compiled for, and their compile-time constants are capitals.
# mypy: allow-untyped-defs
# ruff: noqa: N803

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op, wrap_triton

TILE = 64
DEPTH = 32


def grouped_product(rows: Tensor, weight: Tensor, offsets: Tensor) -> Tensor:
    """`rows` [R, K], in order of experts that end at `offsets` [E] int32, by `weight` [E, N, K], transposed: [R, N]."""
    return _GroupedProduct.apply(rows, weight, offsets)


class _GroupedProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, offsets: Tensor) -> Tensor:
        ctx.save_for_backward(rows, weight, offsets)
        return multiply_rows(rows, weight, offsets)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        rows, weight, offsets = ctx.saved_tensors
        gradient = gradients[0].contiguous()
        return multiply_rows(gradient, weight.mT, offsets), multiply_tokens(gradient, rows, offsets), None


@triton_op("melisma::multiply_rows", mutates_args=())
def multiply_rows(rows: Tensor, weight: Tensor, offsets: Tensor) -> Tensor:
    """`rows` [R, K] by `weight` [E, N, K], transposed: [R, N]."""
    (n_rows, depth), (n_experts, n_columns, _) = rows.shape, weight.shape
    product = rows.new_empty(n_rows, n_columns)
    # So many tiles of rows there are at most, however rows are shared among experts.
    grid = (triton.cdiv(n_rows, TILE) + n_experts, triton.cdiv(n_columns, TILE))
    wrap_triton(_multiply_rows)[grid](
        rows,
        weight,
        offsets,
        product,
        n_experts,
        n_columns,
        depth,
        *rows.stride(),
        *weight.stride(),
        EXPERTS=triton.next_power_of_2(n_experts),
        TILE=TILE,
        DEPTH=DEPTH,
    )
    return product


@triton_op("melisma::multiply_tokens", mutates_args=())
def multiply_tokens(gradient: Tensor, rows: Tensor, offsets: Tensor) -> Tensor:
    """`gradient` [R, N], transposed, by `rows` [R, K], summed over each expert's rows: [E, N, K]."""
    n_experts, n_rows, n_columns = offsets.shape[0], gradient.shape[1], rows.shape[1]
    product = rows.new_empty(n_experts, n_rows, n_columns)
    grid = (n_experts, triton.cdiv(n_rows, TILE), triton.cdiv(n_columns, TILE))
    wrap_triton(_multiply_tokens)[grid](
        gradient,
        rows,
        offsets,
        product,
        n_rows,
        n_columns,
        *gradient.stride(),
        *rows.stride(),
        TILE=TILE,
        DEPTH=DEPTH,
    )
    return product


@triton.jit
def _multiply_rows(
    rows,
    weight,
    offsets,
    product,  # row-major
    n_experts,
    n_columns,
    depth,
    row_stride,
    row_depth_stride,
    expert_stride,
    column_stride,
    column_depth_stride,
    EXPERTS: tl.constexpr,
    TILE: tl.constexpr,
    DEPTH: tl.constexpr,
):
    tile = tl.program_id(0)
    experts = tl.arange(0, EXPERTS)
    ends = tl.load(offsets + experts, experts < n_experts, other=0)
    starts = tl.load(offsets + experts - 1, (experts > 0) & (experts < n_experts), other=0)
    tile_ends = tl.cumsum(tl.cdiv(tl.maximum(ends - starts, 0), TILE), 0)
    expert = tl.sum((tile_ends <= tile).to(tl.int32), 0)
    # Experts beyond the last, which fill up the power of two, end where it does.
    if expert < n_experts:
        first_tile = tl.max(tl.where(experts < expert, tile_ends, 0), 0)
        start = tl.sum(tl.where(experts == expert, starts, 0), 0)
        end = tl.sum(tl.where(experts == expert, ends, 0), 0)
        row = (start + (tile - first_tile) * TILE + tl.arange(0, TILE)).to(tl.int64)
        column = tl.program_id(1) * TILE + tl.arange(0, TILE)
        total = tl.zeros((TILE, TILE), tl.float32)
        for begin in range(0, depth, DEPTH):
            k = begin + tl.arange(0, DEPTH)
            left = tl.load(
                rows + row[:, None] * row_stride + k[None, :] * row_depth_stride,
                (row < end)[:, None] & (k < depth)[None, :],
                other=0.0,
            )
            right = tl.load(
                weight
                + expert.to(tl.int64) * expert_stride
                + k[:, None] * column_depth_stride
                + column[None, :] * column_stride,
                (k < depth)[:, None] & (column < n_columns)[None, :],
                other=0.0,
            )
            total += tl.dot(left, right, input_precision="ieee")
        inside = (row < end)[:, None] & (column < n_columns)[None, :]
        tl.store(product + row[:, None] * n_columns + column[None, :], total, inside)


@triton.jit
def _multiply_tokens(
    gradient,
    rows,
    offsets,
    product,  # row-major
    n_rows,
    n_columns,
    gradient_stride,
    gradient_row_stride,
    row_stride,
    column_stride,
    TILE: tl.constexpr,
    DEPTH: tl.constexpr,
):
    expert = tl.program_id(0)
    end = tl.load(offsets + expert)
    start = tl.load(offsets + expert - 1, expert > 0, other=0)
    row = tl.program_id(1) * TILE + tl.arange(0, TILE)
    column = tl.program_id(2) * TILE + tl.arange(0, TILE)
    total = tl.zeros((TILE, TILE), tl.float32)
    for begin in range(start, end, DEPTH):
        token = (begin + tl.arange(0, DEPTH)).to(tl.int64)
        left = tl.load(
            gradient + token[None, :] * gradient_stride + row[:, None] * gradient_row_stride,
            (row < n_rows)[:, None] & (token < end)[None, :],
            other=0.0,
        )
        right = tl.load(
            rows + token[:, None] * row_stride + column[None, :] * column_stride,
            (token < end)[:, None] & (column < n_columns)[None, :],
            other=0.0,
        )
        total += tl.dot(left, right, input_precision="ieee")
    place = (expert.to(tl.int64) * n_rows + row[:, None]) * n_columns + column[None, :]
    tl.store(product + place, total, (row < n_rows)[:, None] & (column < n_columns)[None, :])
