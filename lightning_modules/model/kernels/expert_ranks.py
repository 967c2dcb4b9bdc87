"""The choice of experts from a router's scores: every expert's rank, all at once (see `Router`)."""

# Kernels are typed by what they are compiled for, and their compile-time constants are capitals.
# mypy: allow-untyped-defs
# ruff: noqa: N803

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from lightning_modules.model.kernels.dependent_launch import dependent_launch, launch_dependents, wait_for_previous


@dataclass(frozen=True)
class Choice:
    """How a router chooses; with `n_chosen` 0 there is none.

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

    bias: Tensor | None = None
    n_experts: int = 0
    n_groups: int = 1
    n_groups_kept: int = 1
    n_chosen: int = 0
    is_sigmoid: bool = True
    normalises: bool = True
    scaling: float = 1.0

    def constants(self) -> dict[str, int | bool]:
        """What kernels are compiled for."""
        return {
            "EXPERTS": self.n_experts,
            "GROUPS": self.n_groups,
            "KEPT": self.n_groups_kept,
            "CHOSEN": self.n_chosen,
            "SIGMOID": self.is_sigmoid,
            "NORMALISES": self.normalises,
        }


def choose(logits: Tensor, choice: Choice) -> tuple[Tensor, Tensor]:
    """The experts [N, K], best first, that rows of FP32 `logits` [N, E] choose, and their weights: int32 and FP32."""
    n_rows = logits.shape[0]
    indices = torch.empty(n_rows, choice.n_chosen, dtype=torch.int32, device=logits.device)
    weights = torch.empty(n_rows, choice.n_chosen, dtype=torch.float32, device=logits.device)
    _choose[(n_rows,)](
        logits,
        choice.bias,
        indices,
        weights,
        choice.scaling,
        **choice.constants(),
        num_warps=4,
        **dependent_launch(logits.device),
    )
    return indices, weights


@triton.jit
def rank_experts(
    logits,  # FP32 [E] of one row
    bias,  # FP32 [E]
    EXPERTS: tl.constexpr,
    GROUPS: tl.constexpr,
    KEPT: tl.constexpr,
    CHOSEN: tl.constexpr,
    SIGMOID: tl.constexpr,
    NORMALISES: tl.constexpr,
):
    """Ranks of all experts, 0 the best, their scores, and what the chosen ones' scores are to be divided by.

    Places beyond the last expert, up to a power of two, rank behind all others. Equal scores rank in order.
    """
    lowest = float("-inf")
    number = tl.arange(0, triton.next_power_of_2(EXPERTS))
    is_expert = number < EXPERTS
    # Past the first cache, which may hold what lay here a step ago: others can have written since this kernel began.
    logit = tl.load(logits + number, mask=is_expert, other=lowest, cache_modifier=".cg")
    if SIGMOID:
        score = tl.sigmoid(logit)
    else:
        score = tl.exp(logit - tl.max(logit, axis=0))
        score = score / tl.sum(score, axis=0)
    biased = tl.where(is_expert, score + tl.load(bias + number, mask=is_expert, other=0.0), lowest)
    if GROUPS > 1:
        biased = tl.where(_is_kept(number, biased, EXPERTS // GROUPS, GROUPS, KEPT), biased, lowest)
    rank = _rank(biased, number)
    total = 1.0
    if NORMALISES:
        total = tl.sum(tl.where(rank < CHOSEN, score, 0.0), axis=0) + 1e-20
    return rank, score, total


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
    launch_dependents(DEPENDENT)
    wait_for_previous(DEPENDENT)
    row = tl.program_id(0)
    rank, score, total = rank_experts(logits + row * EXPERTS, bias, EXPERTS, GROUPS, KEPT, CHOSEN, SIGMOID, NORMALISES)
    is_chosen = rank < CHOSEN
    tl.store(indices + row * CHOSEN + rank, tl.arange(0, rank.shape[0]), mask=is_chosen)
    tl.store(weights + row * CHOSEN + rank, score / total * scaling, mask=is_chosen)
