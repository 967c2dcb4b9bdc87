"""The end of a step of decoding in one kernel: from logits to a drawn token, and to what rows are then.

Another kernel computes the distributions alone, which speculation compares.
"""

# Kernels are typed by what they are compiled for, and their compile-time constants are capitals.
# mypy: allow-untyped-defs
# ruff: noqa: N803

import torch
import triton
import triton.language as tl
from torch import Tensor

from lightning_modules.model.sampling_configuration import SamplingConfig

# Logits that one program holds at once.
LARGEST_VOCABULARY = 1 << 14


def add_next_tokens(
    logits: Tensor,
    sampling: SamplingConfig,
    allowed: Tensor | None,
    end_token: int | None,
    tokens: Tensor,
    lengths: Tensor,
    limits: Tensor,
    chances: Tensor,
    said: Tensor,
) -> None:
    """Draw a token for each row from its logits [B, V], and add it: `TokenSource.draw` and `RowState.add`.

    Args:
        logits: scores of the next token, of up to `LARGEST_VOCABULARY`.
        sampling: how tokens are drawn.
        allowed: [Q, V] masks of legal tokens; None allows all.
        end_token: ends the row that draws it.
        tokens: [B, places] as all that follow, of `RowState`.
        lengths: [B].
        limits: [B].
        chances: [B, places] by which tokens are drawn.
        said: [B, 4].
    """
    n_rows, n_tokens = logits.shape
    _add_next_token[(n_rows,)](
        logits,
        logits if allowed is None else allowed,
        tokens,
        lengths,
        limits,
        chances,
        said,
        logits.stride(0),
        tokens.stride(0),
        chances.stride(0),
        said.stride(0),
        0 if allowed is None else len(allowed),
        HAS_MASK=allowed is not None,
        END=-1 if end_token is None else end_token,
        IS_GREEDY=sampling.temperature == 0,
        **_of(sampling, n_tokens),
        num_warps=8,
    )


def probabilities(logits: Tensor, sampling: SamplingConfig) -> Tensor:
    """`token_probabilities` of logits [..., V], of up to `LARGEST_VOCABULARY` tokens, at a temperature above 0."""
    rows = logits.flatten(0, -2).contiguous()
    output = torch.empty_like(rows, dtype=torch.float32)
    _probabilities[(rows.shape[0],)](rows, output, **_of(sampling, rows.shape[1]), num_warps=8)
    return output.view(logits.shape)


def _of(sampling: SamplingConfig, n_tokens: int) -> dict[str, float]:
    """What kernels are told of a way to draw from so many tokens."""
    return {
        "temperature": sampling.temperature or 1.0,
        "mass": 1.0 if sampling.top_p is None else sampling.top_p,
        "n_tokens": n_tokens,
        "KEPT": n_tokens if sampling.top_k is None else min(sampling.top_k, n_tokens),
        "ALL": n_tokens,
        "HAS_MASS": sampling.top_p is not None and sampling.top_p < 1,
        "BLOCK": triton.next_power_of_2(n_tokens),
    }


@triton.jit
def _least_reaching(rank, weight, goal):
    """The least rank whose weights and those of all before it add up to `goal`, or of which one reaches more.

    Ranks are integers from 0 below 2³¹. Bit by bit, from the highest on: a bit is set as long as the weights of all
    ranks below do not reach the goal.
    """
    least = tl.full((), 0, tl.int32)
    bit = tl.full((), 1 << 30, tl.int32)
    for _ in range(31):
        tried = least + bit
        below = tl.sum(tl.where(rank < tried, weight, 0.0), axis=0)
        least = tl.where(below < goal, tried, least)
        bit = bit >> 1
    return least


@triton.jit
def _weights(score, is_token, temperature, mass, KEPT: tl.constexpr, ALL: tl.constexpr, HAS_MASS: tl.constexpr):
    """What tokens count that are drawn by their scores: 1 for the best, 0 for those that are not kept."""
    # What a token lacks of the best: not negative, so that its bits order as it does.
    lack = (tl.max(score, axis=0) - score) / temperature
    rank = lack.to(tl.int32, bitcast=True)
    if KEPT < ALL:
        last = _least_reaching(rank, tl.where(is_token, 1.0, 0.0), KEPT)
        lack = tl.where(rank <= last, lack, float("inf"))
    weight = tl.exp(-lack)
    if HAS_MASS:
        last = _least_reaching(rank, weight, mass * tl.sum(weight, axis=0))
        weight = tl.where(rank <= last, weight, 0.0)
    return weight


@triton.jit
def _probabilities(
    logits,
    output,
    temperature,
    mass,
    n_tokens,
    KEPT: tl.constexpr,
    ALL: tl.constexpr,
    HAS_MASS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The distribution of one row."""
    row = tl.program_id(0).to(tl.int64)
    number = tl.arange(0, BLOCK)
    is_token = number < n_tokens
    score = tl.load(logits + row * n_tokens + number, mask=is_token, other=float("-inf")).to(tl.float32)
    weight = _weights(score, is_token, temperature, mass, KEPT, ALL, HAS_MASS)
    tl.store(output + row * n_tokens + number, weight / tl.sum(weight, axis=0), mask=is_token)


@triton.jit
def _add_next_token(
    logits,
    allowed,
    tokens,
    lengths,
    limits,
    chances,
    said,
    logits_stride,
    tokens_stride,
    chances_stride,
    said_stride,
    n_masks,
    temperature,
    mass,
    n_tokens,
    HAS_MASK: tl.constexpr,
    END: tl.constexpr,
    IS_GREEDY: tl.constexpr,
    KEPT: tl.constexpr,
    ALL: tl.constexpr,
    HAS_MASS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Draw and add the token of one row."""
    row = tl.program_id(0).to(tl.int64)
    number = tl.arange(0, BLOCK)
    length = tl.load(lengths + row)
    score = tl.load(logits + row * logits_stride + number, mask=number < n_tokens, other=float("-inf")).to(tl.float32)
    if HAS_MASK:
        turn = (length - 1) % n_masks
        is_legal = tl.load(allowed + turn * n_tokens + number, mask=number < n_tokens, other=0)
        score = tl.where(is_legal != 0, score, float("-inf"))
    if IS_GREEDY:
        token = tl.argmax(score, axis=0).to(tl.int64)
    else:
        weight = _weights(score, number < n_tokens, temperature, mass, KEPT, ALL, HAS_MASS)
        sums = tl.cumsum(weight, axis=0)
        chance = tl.load(chances + row * chances_stride + length)
        is_reached = (sums > chance * tl.max(sums, axis=0)) & (weight > 0)
        token = tl.min(tl.where(is_reached, number, BLOCK), axis=0).to(tl.int64)
    tl.store(tokens + row * tokens_stride + length, token)
    limit = tl.load(limits + row)
    n_added = tl.where(length < limit, 1, 0).to(tl.int64)
    if token == END and n_added == 1:
        limit = length + 1
        tl.store(limits + row, limit)
    tl.store(lengths + row, length + n_added)
    tl.store(said + row * said_stride, n_added)
    tl.store(said + row * said_stride + 1, tl.full((), 1, tl.int64))
    tl.store(said + row * said_stride + 2, limit - length - n_added)
    tl.store(said + row * said_stride + 3, token)
