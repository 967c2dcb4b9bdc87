"""The choice of experts from a router's scores: every expert's rank, all at once (see `Router`)."""

# Kernels are typed by what they are compiled for, and their compile-time constants are capitals.
# mypy: allow-untyped-defs
# ruff: noqa: N803, N806

from dataclasses import dataclass
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from lightning_modules.model.kernels.dependent_launch import dependent_launch, launch_dependents, wait_for_previous

# Pairs of experts that a warp compares, about, and warps at most.
PAIRS_OF_WARP, MOST_WARPS = 4096, 8


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
        num_warps=_warps(places(choice.n_experts, choice.n_groups)),
        **dependent_launch(logits.device),
    )
    return choices


def _warps(n_places: int) -> int:
    """That rank so many. One has no others to wait for; with too many places it would have too few registers."""
    return min(max(n_places**2 // PAIRS_OF_WARP, 1), MOST_WARPS)


@triton.constexpr_function
def places(n_experts: int, n_groups: int) -> int:
    """That experts take up where groups, and members of each, are powers of two."""
    return triton.next_power_of_2(n_groups) * triton.next_power_of_2(n_experts // n_groups)


@triton.jit
def _is_kept(scores, KEPT: tl.constexpr):
    """Whether each group of `scores` [groups, members] is among the KEPT best by the sum of its two best."""
    lowest = float("-inf")
    member = tl.arange(0, scores.shape[1])
    best, at_best = tl.max(scores, axis=1, return_indices=True)
    second = tl.max(tl.where(member[None, :] == at_best[:, None], lowest, scores), axis=1)
    # A group of one expert counts by that one alone.
    of_group = best + tl.where(second == lowest, 0.0, second)
    return _rank(of_group, tl.arange(0, scores.shape[0])) < KEPT


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
    """Rank all experts of a row, laid out group by group; places to spare rank behind all others."""
    lowest = float("-inf")
    WIDTH: tl.constexpr = EXPERTS // GROUPS
    PLACES: tl.constexpr = places(EXPERTS, GROUPS)
    row = tl.program_id(0)
    group = tl.arange(0, triton.next_power_of_2(GROUPS))[:, None]
    member = tl.arange(0, triton.next_power_of_2(WIDTH))[None, :]
    number = group * WIDTH + member
    is_expert = (group < GROUPS) & (member < WIDTH)
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
        score = tl.exp(logit - tl.max(tl.max(logit, axis=1), axis=0))
        score = tl.div_rn(score, tl.broadcast_to(tl.sum(tl.sum(score, axis=1), axis=0), score.shape))
    biased = tl.where(is_expert, score + advantage, lowest)
    if GROUPS > 1:
        biased = tl.where(_is_kept(biased, KEPT)[:, None], biased, lowest)
    score, number = tl.reshape(score, [PLACES]), tl.reshape(number, [PLACES])
    rank = _rank(tl.reshape(biased, [PLACES]), number)
    is_chosen = rank < CHOSEN
    total = 1.0
    if NORMALISES:
        total = tl.sum(tl.where(is_chosen, score, 0.0), axis=0) + 1e-20
    tl.store(indices + row * CHOSEN + rank, number, mask=is_chosen)
    tl.store(weights + row * CHOSEN + rank, score / total * scaling, mask=is_chosen)
