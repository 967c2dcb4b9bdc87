"""Rows spread from tokens to their experts and summed back, at the speed of memory."""

# Kernels are typed by what they are compiled for, and their compile-time constants are capitals.
# mypy: allow-untyped-defs
# ruff: noqa: N803

import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op, wrap_triton

# Numbers that one program moves at most.
WIDEST = 4096


@triton_op("melisma::spread_rows", mutates_args=())
def spread_rows(tokens: Tensor, order: Tensor, n_chosen: int) -> Tensor:
    """Row r is token order[r] // K, or zero where that is -1: [N, D] to [R, D]."""
    tokens = tokens.contiguous()
    rows = tokens.new_empty(order.numel(), tokens.shape[1])
    if rows.numel():
        width = _width(tokens.shape[1])
        grid = (order.numel(), triton.cdiv(tokens.shape[1], width))
        wrap_triton(_spread)[grid](tokens, order, rows, n_chosen, tokens.shape[1], WIDTH=width, num_warps=4)
    return rows


@triton_op("melisma::sum_rows", mutates_args=())
def sum_rows(rows: Tensor, places: Tensor) -> Tensor:
    """Token n is the sum, in FP32, of the rows places[n] that are not -1: [R, D] to [N, D]."""
    rows = rows.contiguous()
    n_tokens, n_chosen = places.shape
    tokens = rows.new_empty(n_tokens, rows.shape[1])
    if tokens.numel():
        width = _width(rows.shape[1])
        grid = (n_tokens, triton.cdiv(rows.shape[1], width))
        wrap_triton(_sum)[grid](rows, places, tokens, rows.shape[1], CHOSEN=n_chosen, WIDTH=width, num_warps=4)
    return tokens


def _width(n_columns: int) -> int:
    return min(triton.next_power_of_2(n_columns), WIDEST)


@triton.jit
def _spread(tokens, order, rows, n_chosen, width, WIDTH: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    choice = tl.load(order + row)
    token = choice // n_chosen
    numbers = tl.load(tokens + token * width + column, mask=(column < width) & (choice >= 0), other=0.0)
    tl.store(rows + row * width + column, numbers, mask=column < width)


@triton.jit
def _sum(rows, places, tokens, width, CHOSEN: tl.constexpr, WIDTH: tl.constexpr):
    token = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    total = tl.zeros([WIDTH], dtype=tl.float32)
    for k in tl.static_range(CHOSEN):
        row = tl.load(places + token * CHOSEN + k).to(tl.int64)
        kept = (column < width) & (row >= 0)
        total += tl.load(rows + row * width + column, mask=kept, other=0.0).to(tl.float32)
    tl.store(tokens + token * width + column, total.to(tokens.dtype.element_ty), mask=column < width)
