"""How evenly a layer's experts are loaded."""

from collections.abc import Mapping

from torch import Tensor


def max_violation(load: Tensor) -> Tensor:
    """How far the busiest expert of a layer lies above the mean: max(load) / mean(load) − 1, over the last dimension.

    0 is perfect balance (MaxVio of arXiv 2408.15664).
    """
    return load.max(dim=-1).values / load.mean(dim=-1) - 1


def load_cv(load: Tensor) -> Tensor:
    """Coefficient of variation of the load over experts: standard deviation / mean, over the last dimension."""
    return load.std(dim=-1, correction=0) / load.mean(dim=-1)


def balance_metrics(loads: Mapping[int, Tensor]) -> dict[str, float]:
    """Both measures of every layer under their logged names; `loads` are {layer: tokens of each expert [E]}."""
    metrics = {}
    for layer, load in loads.items():
        metrics[f"moe/max_violation/layer_{layer}"] = float(max_violation(load))
        metrics[f"moe/load_cv/layer_{layer}"] = float(load_cv(load))
    return metrics
