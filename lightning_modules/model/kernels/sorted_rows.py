"""Tokens of prompts on their way to experts and back: choices are sorted, tokens copied to them, and rows summed.

Choices are sorted by counting, in blocks: how many of each expert stand in a block, how many in the blocks before, and
where each choice comes to lie. `sorted_choices` does the same for the few rows of a step.

Suffixes as in `experts.py`; N tokens.
"""

# Kernels are typed by what they are compiled for, and their compile-time constants are capitals.
# mypy: allow-untyped-defs
# ruff: noqa: N803, N806

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from lightning_modules.model.kernels.expert_ranks import Choices

# Numbers [choices of a block, experts] that a program counts in, and blocks that it sums over at once.
COUNTED = 16384
SUMMED_BLOCKS = 1024


class Order(NamedTuple):
    """The choices of all tokens, sorted by expert; equal ones stay in order.

    Attributes:
        places: int32 [N, K] which row each choice is.
        sources: int32 [N · K] which token each row is.
        weights: FP32 [N · K] the router's weight of every row.
        ends: int32 [E] where each expert's rows end.
    """

    places: Tensor
    sources: Tensor
    weights: Tensor
    ends: Tensor


def sort_by_expert(choices: Choices, n_experts: int) -> Order:
    """Sort what tokens chose among so many experts."""
    indices, weights = choices
    n_choices = indices.numel()
    order = Order(
        torch.empty_like(indices),
        indices.new_empty(n_choices),
        weights.new_empty(n_choices),
        indices.new_empty(n_experts),
    )
    experts = triton.next_power_of_2(n_experts)
    block = min(max(COUNTED // experts, 16), triton.next_power_of_2(n_choices))
    n_blocks = triton.cdiv(n_choices, block)
    counts = indices.new_empty(n_blocks, experts)
    shape = {"EXPERTS": experts, "BLOCK": block}
    _count[(n_blocks,)](indices, counts, n_choices, **shape)
    before, totals = torch.empty_like(counts), indices.new_empty(experts)
    _sum_blocks[(experts,)](counts, before, totals, n_blocks, EXPERTS=experts, BLOCKS=SUMMED_BLOCKS)
    _place[(n_blocks,)](
        indices, weights, before, totals, *order, n_choices, n_experts, CHOSEN=indices.shape[1], **shape
    )
    return order


def spread(tokens: Tensor, places: Tensor) -> Tensor:
    """Copies [N · K, D] of `tokens` [N, D] at the `places` [N, K] of their choices."""
    (n_tokens, width), n_chosen = tokens.shape, places.shape[1]
    rows = tokens.new_empty(places.numel(), width)
    _spread[(n_tokens,)](
        tokens, places, rows, WIDTH=width, WIDTH_BLOCK=triton.next_power_of_2(width), CHOSEN=n_chosen, num_warps=8
    )
    return rows


def add_rows(rows: Tensor, places: Tensor, hidden: Tensor) -> None:
    """Add to each token of `hidden` [N, D] the rows [N · K, D] at its `places` [N, K]; sums are FP32."""
    n_tokens, width = hidden.shape
    _add_rows[(n_tokens,)](
        rows,
        places,
        hidden,
        WIDTH=width,
        WIDTH_BLOCK=triton.next_power_of_2(width),
        CHOSEN=places.shape[1],
        num_warps=8,
    )


@triton.jit
def _chosen(indices, n_choices, EXPERTS: tl.constexpr, BLOCK: tl.constexpr):
    """Which expert each choice of a block is [BLOCK, EXPERTS], as ones among zeros."""
    choice = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    expert = tl.load(indices + choice, mask=choice < n_choices, other=EXPERTS)
    return (expert[:, None] == tl.arange(0, EXPERTS)[None, :]).to(tl.int32)


@triton.jit
def _count(
    indices,  # int32 [N · K]
    counts,  # int32 [blocks, EXPERTS]
    n_choices,
    EXPERTS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    chosen = _chosen(indices, n_choices, EXPERTS, BLOCK)
    tl.store(counts + tl.program_id(0) * EXPERTS + tl.arange(0, EXPERTS), tl.sum(chosen, axis=0))


@triton.jit
def _sum_blocks(
    counts,  # int32 [blocks, EXPERTS]
    before,  # int32 [blocks, EXPERTS]
    totals,  # int32 [EXPERTS]
    n_blocks,
    EXPERTS: tl.constexpr,
    BLOCKS: tl.constexpr,
):
    """How many choices of one expert stand in the blocks before each, and in all."""
    expert = tl.program_id(0)
    total = 0
    for begin in range(0, n_blocks, BLOCKS):
        block = begin + tl.arange(0, BLOCKS)
        count = tl.load(counts + block * EXPERTS + expert, mask=block < n_blocks, other=0)
        tl.store(before + block * EXPERTS + expert, total + tl.cumsum(count, axis=0) - count, mask=block < n_blocks)
        total += tl.sum(count, axis=0)
    tl.store(totals + expert, total)


@triton.jit
def _place(
    indices,  # int32 [N · K]
    weights,  # FP32 [N · K]
    before,  # int32 [blocks, EXPERTS]
    totals,  # int32 [EXPERTS]
    places,  # int32 [N · K]
    sources,  # int32 [N · K]
    sorted_weights,  # FP32 [N · K]
    ends,  # int32 [E]
    n_choices,
    n_experts,
    CHOSEN: tl.constexpr,
    EXPERTS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    expert = tl.arange(0, EXPERTS)
    total = tl.load(totals + expert)
    end = tl.cumsum(total, axis=0)
    if tl.program_id(0) == 0:
        tl.store(ends + expert, end, mask=expert < n_experts)
    first = end - total + tl.load(before + tl.program_id(0) * EXPERTS + expert)
    chosen = _chosen(indices, n_choices, EXPERTS, BLOCK)
    place = tl.sum((tl.cumsum(chosen, axis=0) - 1 + first[None, :]) * chosen, axis=1)
    choice = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = choice < n_choices
    tl.store(places + choice, place, mask=inside)
    tl.store(sources + place, choice // CHOSEN, mask=inside)
    tl.store(sorted_weights + place, tl.load(weights + choice, mask=inside, other=0.0), mask=inside)


@triton.jit
def _spread(
    tokens,  # [N, D]
    places,  # int32 [N, K]
    rows,  # [N · K, D]
    WIDTH: tl.constexpr,
    WIDTH_BLOCK: tl.constexpr,
    CHOSEN: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, WIDTH_BLOCK)
    inside = column < WIDTH
    numbers = tl.load(tokens + token * WIDTH + column, mask=inside)
    for choice in tl.static_range(CHOSEN):
        row = tl.load(places + token * CHOSEN + choice).to(tl.int64)
        tl.store(rows + row * WIDTH + column, numbers, mask=inside)


@triton.jit
def _add_rows(
    rows,  # [N · K, D]
    places,  # int32 [N, K]
    hidden,  # [N, D]
    WIDTH: tl.constexpr,
    WIDTH_BLOCK: tl.constexpr,
    CHOSEN: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, WIDTH_BLOCK)
    inside = column < WIDTH
    total = tl.load(hidden + token * WIDTH + column, mask=inside, other=0.0).to(tl.float32)
    for choice in tl.static_range(CHOSEN):
        row = tl.load(places + token * CHOSEN + choice).to(tl.int64)
        total += tl.load(rows + row * WIDTH + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(hidden + token * WIDTH + column, total.to(hidden.dtype.element_ty), mask=inside)
