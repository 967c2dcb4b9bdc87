"""What the optimizers that are written here share: their settings, and how a step begins."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch


class MomentOptimizer(torch.optim.Optimizer, ABC):
    """Steps by moments of the gradients, which are kept in a type of their own; `step_groups` says how.

    Args:
        params: in groups that may have their own `weight_decay`.
        lr: the rate.
        betas: of the two moments.
        eps: added to the root of the second.
        moments: their type.
        of_groups: what else groups may have, and what it is where they do not.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        betas: tuple[float, float],
        eps: float,
        moments: torch.dtype,
        of_groups: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0} | dict(of_groups or {}))
        self.moments = moments

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step of every parameter that has a gradient; `closure` first computes the gradients and the loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.step_groups()
        return loss

    @abstractmethod
    def step_groups(self) -> None:
        """Step every parameter that has a gradient."""
