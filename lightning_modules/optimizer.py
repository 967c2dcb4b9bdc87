"""AdamW over plain and sharded parameters, with moments in FP32 or BF16."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from lightning_modules.configuration import check_moments
from lightning_modules.fused_adamw import FusedAdamW
from lightning_modules.model.sharded import is_sharded, local
from lightning_modules.precision.working_weights import WorkingWeights


def build_optimizer(
    groups: list[dict[str, Any]],
    lr: float,
    betas: tuple[float, float],
    eps: float,
    moments: str,
    working_weights: WorkingWeights | None = None,
) -> torch.optim.Optimizer:
    """AdamW over `groups` of parameters, each with its own `weight_decay` (arXiv 1711.05101).

    Parameters that have working weights step with them, in one kernel. Else FP32 moments are torch's own fused
    AdamW.
    """
    check_moments(moments, betas)
    if working_weights is not None:
        dtype = torch.bfloat16 if moments == "bf16" else torch.float32
        return FusedAdamW(groups, lr, betas, eps, dtype, working_weights)
    if moments == "bf16":
        return BF16MomentsAdamW(groups, lr, betas, eps)
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


class BF16MomentsAdamW(torch.optim.Optimizer):
    """AdamW whose two moments are kept in BF16 (arXiv 2412.19437, section 3.3.2): half the memory of its state.

    Parameters are FP32, and every step computes in FP32; only what waits for the next step is rounded.
    """

    def __init__(
        self, params: Iterable[Any], lr: float, betas: tuple[float, float], eps: float, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step of every parameter that has a gradient; `closure` first computes the gradients and the loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._step_one(parameter, local(parameter.grad), group)
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state, whatever type its moments were saved in: torch casts them to the parameters' type."""
        super().load_state_dict(state_dict)
        for state in self.state.values():
            for name in ("exp_avg", "exp_avg_sq"):
                state[name] = state[name].to(torch.bfloat16)

    def _step_one(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.tensor(0.0, dtype=torch.float32)
            state["exp_avg"] = torch.zeros_like(parameter, dtype=torch.bfloat16)
            state["exp_avg_sq"] = torch.zeros_like(parameter, dtype=torch.bfloat16)
        state["step"] += 1
        step = state["step"].item()
        beta1, beta2 = group["betas"]
        gradient, weight = gradient.float(), local(parameter)
        mean, square = local(state["exp_avg"]), local(state["exp_avg_sq"])
        exact_mean = mean.float().lerp_(gradient, 1 - beta1)
        exact_square = square.float().mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        mean.copy_(exact_mean)
        square.copy_(exact_square)
        denominator = exact_square.sqrt_().div_((1 - beta2**step) ** 0.5).add_(group["eps"])
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.addcdiv_(exact_mean, denominator, value=-group["lr"] / (1 - beta1**step))
