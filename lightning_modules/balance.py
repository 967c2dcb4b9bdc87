"""How evenly a layer's experts are loaded."""

from collections.abc import Mapping

import torch
from torch import Tensor

# An expert with less than this share of an even load counts as dead.
DEAD = 0.01


def max_violation(load: Tensor) -> Tensor:
    """How far the busiest expert of a layer lies above the mean: max(load) / mean(load) − 1, over the last dimension.

    0 is perfect balance (MaxVio of arXiv 2408.15664).
    """
    return load.max(dim=-1).values / load.mean(dim=-1) - 1


def load_cv(load: Tensor) -> Tensor:
    """Coefficient of variation of the load over experts: standard deviation / mean, over the last dimension."""
    return load.std(dim=-1, correction=0) / load.mean(dim=-1)


def load_entropy(load: Tensor) -> Tensor:
    """The load's entropy relative to that of an even one, over the last dimension: 1 is even, 0 one expert alone."""
    share = load / load.sum(dim=-1, keepdim=True)
    return torch.special.entr(share).sum(dim=-1) / torch.tensor(float(max(load.shape[-1], 2))).log()


def dead_experts(load: Tensor) -> Tensor:
    """How many experts receive less than a hundredth of an even load, over the last dimension."""
    return (load < DEAD * load.mean(dim=-1, keepdim=True)).sum(dim=-1)


def load_drift(before: Tensor, now: Tensor) -> Tensor:
    """The share of the load that lies with other experts than before: the total variation distance [...].

    Args:
        before: load of each expert [..., E].
        now: the same, later.
    """
    before, now = (load / load.sum(dim=-1, keepdim=True) for load in (before, now))
    return (now - before).abs().sum(dim=-1) / 2


def balance_metrics(loads: Mapping[int, Tensor]) -> dict[str, float]:
    """The measures of every layer under their logged names; `loads` are {layer: tokens of each expert [E]}."""
    measures = {
        "max_violation": max_violation,
        "load_cv": load_cv,
        "load_entropy": load_entropy,
        "dead_experts": dead_experts,
    }
    return {
        f"moe/{name}/layer_{layer}": float(measure(load))
        for layer, load in loads.items()
        for name, measure in measures.items()
    }
