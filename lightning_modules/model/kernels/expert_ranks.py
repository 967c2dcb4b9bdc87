"""The choice of experts from a router's scores: every expert's rank, all at once (see `Router`)."""

# Kernels are typed by what they are compiled for, and their compile-time constants are capitals.
# mypy: allow-untyped-defs
# ruff: noqa: N803

from dataclasses import dataclass
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from lightning_modules.model.kernels.dependent_launch import dependent_launch, launch_dependents, wait_for_previous


@dataclass(frozen=True)
class Choice:
    """How a router chooses.

    Attributes:
        bias: FP32 [E] that moves the choice alone.
        n_experts: E.
        n_groups: G, into which the experts fall in order.
        n_groups_kept: groups to choose from, by the sum of their two best scores.
        n_chosen: K.
        is_sigmoid: whether scores are sigmoids of logits, instead of their softmax.
        normalises: whether the chosen experts' weights are divided by their sum.
        scaling: what the weights are multiplied by then.
    """

    bias: Tensor
    n_experts: int
    n_groups: int
    n_groups_kept: int
    n_chosen: int
    is_sigmoid: bool
    normalises: bool
    scaling: float


class Choices(NamedTuple):
    """The experts int32 [N, K] of rows, best first, and what each counts, FP32 [N, K]."""

    indices: Tensor
    weights: Tensor


def choose(logits: Tensor, choice: Choice) -> Choices:
    """What rows of FP32 `logits` [N, E] choose; equal scores rank in order."""
    n_rows = logits.shape[0]
    indices = torch.empty(n_rows, choice.n_chosen, dtype=torch.int32, device=logits.device)
    choices = Choices(indices, torch.empty_like(indices, dtype=torch.float32))
    _choose[(n_rows,)](
        logits,
        choice.bias,
        *choices,
        choice.scaling,
        EXPERTS=choice.n_experts,
        GROUPS=choice.n_groups,
        KEPT=choice.n_groups_kept,
        CHOSEN=choice.n_chosen,
        SIGMOID=choice.is_sigmoid,
        NORMALISES=choice.normalises,
        # One warp has no others to wait for; with too many experts it would have too few registers.
        num_warps=1 if choice.n_experts <= 64 else 4,
        **dependent_launch(logits.device),
    )
    return choices


@triton.jit
def _is_kept(number, scores, WIDTH: tl.constexpr, GROUPS: tl.constexpr, KEPT: tl.constexpr):
    """Whether each expert's group is among the KEPT best by the sum of their two best scores."""
    lowest = float("-inf")
    group = tl.arange(0, triton.next_power_of_2(GROUPS))
    is_member = (number // WIDTH)[None, :] == group[:, None]
    members = tl.where(is_member, scores[None, :], lowest)
    best, at_best = tl.max(members, axis=1, return_indices=True)
    second = tl.max(tl.where(number[None, :] == at_best[:, None], lowest, members), axis=1)
    # A group of one expert counts by that one alone.
    of_group = tl.where(group < GROUPS, best + tl.where(second == lowest, 0.0, second), lowest)
    is_kept = (_rank(of_group, group) < KEPT).to(tl.int32)
    return tl.max(tl.where(is_member, is_kept[:, None], 0), axis=0) > 0


@triton.jit
def _rank(scores, number):
    """How many of `scores` are better than each, or equal and before it."""
    mine, others = scores[:, None], scores[None, :]
    is_better = (others > mine) | ((others == mine) & (number[None, :] < number[:, None]))
    return tl.sum(is_better.to(tl.int32), axis=1)


@triton.jit
def _choose(
    logits,  # FP32 [N, E]
    bias,  # FP32 [E]
    indices,  # int32 [N, K]
    weights,  # FP32 [N, K]
    scaling,
    EXPERTS: tl.constexpr,
    GROUPS: tl.constexpr,
    KEPT: tl.constexpr,
    CHOSEN: tl.constexpr,
    SIGMOID: tl.constexpr,
    NORMALISES: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """Rank all experts of a row; places beyond the last, up to a power of two, rank behind all others."""
    lowest = float("-inf")
    row = tl.program_id(0)
    number = tl.arange(0, triton.next_power_of_2(EXPERTS))
    is_expert = number < EXPERTS
    advantage = tl.load(bias + number, mask=is_expert, other=0.0)
    wait_for_previous(DEPENDENT)
    # Not before: kernels that begin far ahead take room from those that others wait for.
    launch_dependents(DEPENDENT)
    logit = tl.load(logits + row * EXPERTS + number, mask=is_expert, other=lowest)
    # Scores are compared among themselves, by threads which may compute them anew. A division that is rounded as it
    # should be comes out the same; another might be joined with the sum below in one place, and not in the next.
    if SIGMOID:
        score = tl.div_rn(tl.full(number.shape, 1.0, tl.float32), 1.0 + tl.exp(-logit))
    else:
        score = tl.exp(logit - tl.max(logit, axis=0))
        score = tl.div_rn(score, tl.broadcast_to(tl.sum(score, axis=0), score.shape))
    biased = tl.where(is_expert, score + advantage, lowest)
    if GROUPS > 1:
        biased = tl.where(_is_kept(number, biased, EXPERTS // GROUPS, GROUPS, KEPT), biased, lowest)
    rank = _rank(biased, number)
    is_chosen = rank < CHOSEN
    total = 1.0
    if NORMALISES:
        total = tl.sum(tl.where(is_chosen, score, 0.0), axis=0) + 1e-20
    tl.store(indices + row * CHOSEN + rank, number, mask=is_chosen)
    tl.store(weights + row * CHOSEN + rank, score / total * scaling, mask=is_chosen)
