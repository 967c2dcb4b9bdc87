"""AdamW over plain and sharded parameters, with moments in FP32 or BF16 (arXiv 1711.05101)."""

from typing import Any

import torch
from torch import Tensor

from lightning_modules.fused_adamw import FusedAdamW
from lightning_modules.model.sharded import is_sharded, local
from lightning_modules.moment_optimizer import MomentOptimizer
from lightning_modules.precision.working_weights import WorkingWeights

# What is kept from one step to the next in a type of its own.
MOMENTS = ("exp_avg", "exp_avg_sq", "momentum_buffer")


def build_adamw(
    groups: list[dict[str, Any]],
    lr: float,
    betas: tuple[float, float],
    eps: float,
    moments: torch.dtype,
    working_weights: WorkingWeights | None = None,
) -> torch.optim.Optimizer:
    """AdamW over `groups` of parameters, each with its own `weight_decay`, whose moments are kept in a type.

    Parameters that have working weights step with them, in one kernel. Else FP32 moments are torch's own fused AdamW.

    Args:
        groups: of parameters.
        lr: the rate.
        betas: of the two moments.
        eps: added to the root of the second.
        moments: their type.
        working_weights: rounded copies of the parameters, if there are any.
    """
    if working_weights is not None:
        return FusedAdamW(groups, lr, betas, eps, moments, working_weights)
    if moments != torch.float32:
        return EagerAdamW(groups, lr, betas, eps, moments)
    parameters = [parameter for group in groups for parameter in group["params"]]
    kind = ShardedAdamW if any(map(is_sharded, parameters)) else torch.optim.AdamW
    return kind(groups, lr=lr, betas=betas, eps=eps, fused=True)


class ShardedAdamW(torch.optim.AdamW):
    """torch's AdamW over DTensors of different meshes at once.

    Its fused and foreach steps take lists of tensors of one mesh only. A step is the same for every element, wherever
    it lies, so each rank steps on its own shards. State stays sharded as the parameters are.
    """

    def _init_group(self, group: dict[str, Any], *lists: list[Tensor]) -> bool:
        has_complex = super()._init_group(group, *lists)
        for tensors in lists:
            tensors[:] = [local(tensor) for tensor in tensors]
        return has_complex


class EagerAdamW(MomentOptimizer):
    """AdamW, one parameter after another.

    Moments in BF16 take half the memory (arXiv 2412.19437, section 3.3.2). Parameters are FP32, and every step computes
    in FP32; only what waits for the next step is rounded.
    """

    def step_groups(self) -> None:
        """Step every parameter that has a gradient."""
        for group in self.param_groups:
            self.step_group(group, [parameter for parameter in group["params"] if parameter.grad is not None])

    def step_group(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        """Step `parameters`, of `group`."""
        for parameter in parameters:
            self._step_one(parameter, group)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state, whatever type its moments were saved in: torch casts them to the parameters' type."""
        super().load_state_dict(state_dict)
        for state in self.state.values():
            state.update({name: state[name].to(self.moments) for name in MOMENTS if name in state})

    def _step_one(self, parameter: Tensor, group: dict[str, Any]) -> None:
        assert parameter.grad is not None
        state = self.state[parameter]
        if not state:
            state["step"] = torch.tensor(0.0, dtype=torch.float32)
            state["exp_avg"] = torch.zeros_like(parameter, dtype=self.moments)
            state["exp_avg_sq"] = torch.zeros_like(parameter, dtype=self.moments)
        state["step"] += 1
        step = state["step"].item()
        beta1, beta2 = group["betas"]
        gradient, weight = local(parameter.grad).float(), local(parameter)
        mean, square = local(state["exp_avg"]), local(state["exp_avg_sq"])
        # Not in place: moments may be FP32 themselves.
        exact_mean = mean.float().lerp(gradient, 1 - beta1)
        exact_square = (square.float() * beta2).addcmul_(gradient, gradient, value=1 - beta2)
        mean.copy_(exact_mean)
        square.copy_(exact_square)
        denominator = exact_square.sqrt_().div_((1 - beta2**step) ** 0.5).add_(group["eps"])
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.addcdiv_(exact_mean, denominator, value=-group["lr"] / (1 - beta1**step))
