"""Loss scaling for FP16, whose gradients would otherwise vanish below its smallest number (arXiv 1710.03740)."""

import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim import Optimizer

from lightning_modules.model.sharded import local


class LossScale:
    """The factor on the loss: halved by an overflow, doubled after so many steps without one.

    All ranks agree: one rank's overflow is everybody's. Gradients may be plain tensors, or DTensors of any meshes.
    """

    def __init__(self, initial: float = 2.0**16, growth_interval: int = 2000) -> None:
        self.value = initial
        self.growth_interval = growth_interval
        self.steps_without_overflow = 0

    @torch.no_grad()
    def unscale(self, optimizer: Optimizer) -> bool:
        """Divide the optimizer's gradients by the factor, and tell whether all of them, on all ranks, are finite."""
        by_kind: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    gradient = local(parameter.grad)
                    by_kind.setdefault((gradient.device, gradient.dtype), []).append(gradient)
        device = next(iter(by_kind))[0] if by_kind else optimizer.param_groups[0]["params"][0].device
        overflow = torch.zeros(1, dtype=torch.float32, device=device)
        inverse = torch.full((1,), 1 / self.value, dtype=torch.float32, device=device)
        for gradients in by_kind.values():
            torch._amp_foreach_non_finite_check_and_unscale_(gradients, overflow, inverse)
        if dist.is_initialized():
            dist.all_reduce(overflow, dist.ReduceOp.MAX)
        return not overflow.item()

    def update(self, is_finite: bool) -> None:
        """Move the factor after a step."""
        if not is_finite:
            self.value /= 2
            self.steps_without_overflow = 0
            return
        self.steps_without_overflow += 1
        if self.steps_without_overflow == self.growth_interval:
            self.value *= 2
            self.steps_without_overflow = 0
