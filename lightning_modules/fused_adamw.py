"""AdamW on a GPU in one pass over memory: clipping, moments, masters and working weights."""

from collections.abc import Hashable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Partial, Replicate

from lightning_modules.model.sharded import local
from lightning_modules.moment_optimizer import MomentOptimizer
from lightning_modules.precision.kernels.blockwise import squares_of
from lightning_modules.precision.kernels.layouts import Copy
from lightning_modules.precision.working_weights import WorkingWeights

# A master's rounded self: in BF16, or quantised.
Rounded = Tensor | Copy


class FusedAdamW(MomentOptimizer):
    """AdamW (arXiv 1711.05101) over FP32 masters that also writes their rounded copies.

    Its state has the names and types of torch's own AdamW, so that checkpoints open in either. Each rank steps on its
    own shards. All parameters step at one rate.

    Args:
        params: the masters, in groups that may have their own `weight_decay`.
        lr: the rate.
        betas: of the two moments.
        eps: added to the root of the second.
        moments: their type.
        working_weights: the masters' copies.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        betas: tuple[float, float],
        eps: float,
        moments: torch.dtype,
        working_weights: WorkingWeights,
    ) -> None:
        super().__init__(params, lr, betas, eps, moments)
        self._copies: dict[int, Rounded] = {id(master): working for master, working in working_weights.pairs}
        self._copies |= working_weights.quantised
        self._gradient_scale: Tensor | None = None
        self._n_steps = torch.tensor(0.0)
        self._kinds: dict[tuple[int, ...], _Kind] = {}
        self._clipped: list[_Kind] = []

    @torch.no_grad()
    def clip(self, max_norm: float) -> Tensor:
        """Let the next step's gradients count less where their total norm is above `max_norm`; returns the norm.

        They stay as they are: the step multiplies, without a pass over memory of its own. Every rank returns the same.
        """
        self._clipped[:] = self._find_kinds()
        squares = [kind.squared_norm() for kind in self._clipped]
        norm = torch.stack(squares).sum().sqrt() if squares else torch.tensor(0.0)
        self._gradient_scale = (max_norm / (norm + 1e-6)).clamp(max=1.0)
        return norm

    def step_groups(self) -> None:
        """Step every parameter that has a gradient, as many in one launch as are of a kind."""
        # Whoever looked at the norm has kept the GPU waiting since: little is left to be done now.
        scale = self._gradient_scale if self._clipped else None
        kinds = list(self._clipped) or self._find_kinds()
        if kinds:
            n_steps = self._count_step(kinds)
            group = self.param_groups[0]
            (beta1, beta2), rate, epsilon = group["betas"], group["lr"], group["eps"]
            corrections = 1 - beta1**n_steps, (1 - beta2**n_steps) ** 0.5
            if scale is None:
                scale = torch.ones((), device=kinds[0].parameters[0].device)
            for kind in kinds:
                kind.step(scale, rate, beta1, beta2, epsilon, *corrections)
        self._clipped.clear()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients, and what was found out about them."""
        super().zero_grad(set_to_none)
        # In place: Lightning calls this on a copy of the optimizer.
        self._clipped.clear()
        for kind in self._kinds.values():
            kind.drop_gradients()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state, whatever type its moments were saved in."""
        super().load_state_dict(state_dict)
        self._kinds = {}
        self._clipped.clear()
        known = [state["step"] for state in self.state.values()]
        self._n_steps = known[0].cpu().clone() if known else torch.tensor(0.0)
        for state in self.state.values():
            state["step"] = self._n_steps
            for name in ("exp_avg", "exp_avg_sq"):
                state[name] = state[name].to(self.moments)

    def _count_step(self, kinds: list["_Kind"]) -> int:
        """Make room for new parameters' moments, and count, in one number on the host that is everybody's."""
        for kind in kinds:
            kind.begin(self._n_steps, self.moments)
        self._n_steps += 1
        return int(self._n_steps)

    def _find_kinds(self) -> list["_Kind"]:
        """Parameters that have gradients, apart by what one launch cannot mix."""
        parts: dict[Hashable, list[tuple[Tensor, Rounded, float]]] = {}
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    copy = self._copies[id(parameter)]
                    mesh = parameter.device_mesh if isinstance(parameter, DTensor) else None
                    # Of stacks a product may tell the norm, of matrices it does not.
                    kind = parameter.ndim if isinstance(copy, Copy) else copy.dtype
                    parts.setdefault((parameter.grad.dtype, kind, mesh), []).append(
                        (parameter, copy, group["weight_decay"])
                    )
        kinds = []
        for part in parts.values():
            parameters = tuple(id(parameter) for parameter, _, _ in part)
            if parameters not in self._kinds:
                is_quantised = isinstance(part[0][1], Copy)
                self._kinds[parameters] = (_QuantisedKind if is_quantised else _Kind)(self.state, part)
            kinds.append(self._kinds[parameters])
            kinds[-1].take_gradients()
        return kinds


class _Kind:
    """Parameters that step in one launch: of one mesh, with gradients and copies of one type each."""

    def __init__(self, state: Any, parts: list[tuple[Tensor, Any, float]]) -> None:
        # Triton is only there where a GPU is.
        from lightning_modules.precision.kernels.tensor_table import TensorTable

        self.parameters = [parameter for parameter, _, _ in parts]
        self._state = state
        self._moments: tuple[list[Tensor], list[Tensor]] | None = None
        self._gradients: list[Tensor] = []
        self._masters = [local(parameter.detach()) for parameter in self.parameters]
        copies = (copy for _, copy, _ in parts)
        self._copies: list[Any] = [c if isinstance(c, Copy) else local(c.detach()) for c in copies]
        device = self._masters[0].device
        self._decay_table = torch.tensor([decay for _, _, decay in parts], device=device)
        self._table = TensorTable([master.numel() for master in self._masters], device)

    def take_gradients(self) -> None:
        """Look where the gradients lie."""
        self._table.forget(self._gradients)
        self._gradients = [local(parameter.grad) for parameter in self.parameters if parameter.grad is not None]

    def drop_gradients(self) -> None:
        """Hold none of them through the next step: they are as large as the weights."""
        self._table.forget(self._gradients)
        self._gradients = []

    def begin(self, n_steps: Tensor, moments: torch.dtype) -> None:
        """Let every parameter have its state, if it has none yet."""
        if self._moments is not None:
            return
        for parameter in self.parameters:
            if not self._state[parameter]:
                zeros = (torch.zeros_like(parameter, dtype=moments) for _ in range(2))
                self._state[parameter] = dict(zip(("step", "exp_avg", "exp_avg_sq"), (n_steps, *zeros), strict=True))
        first, second = ([local(self._state[p][n]) for p in self.parameters] for n in ("exp_avg", "exp_avg_sq"))
        self._moments = first, second

    def squared_norm(self) -> Tensor:
        """Of all gradients, over all ranks."""
        squares = self._sum_of_squares()
        parameter = self.parameters[0]
        if not isinstance(parameter, DTensor):
            return squares
        placements = [Partial() if placement.is_shard() else Replicate() for placement in parameter.placements]
        return DTensor.from_local(squares, parameter.device_mesh, placements).full_tensor()

    def _sum_of_squares(self) -> Tensor:
        """Of this rank's gradients."""
        return self._table.squared_norm(self._gradients)

    def step(self, scale: Tensor, *numbers: float) -> None:
        """Launch the kernel; `numbers` as it names them, from the rate on."""
        assert self._moments is not None
        tensors = self._masters, self._copies, self._gradients, *self._moments
        self._table.adamw(*tensors, self._decay_table, scale, *numbers)


class _QuantisedKind(_Kind):
    """Matrices, or stacks of them, that compute in FP8: the step quantises them."""

    def __init__(self, state: Any, parts: list[tuple[Tensor, Any, float]]) -> None:
        from lightning_modules.precision.kernels.adamw_blocks import BlockTable

        super().__init__(state, parts)
        self._blocks = BlockTable(self._copies)

    def take_gradients(self) -> None:
        """Look where the gradients lie, before the norm is waited for."""
        super().take_gradients()
        self._table.offsets(self._gradients)

    def step(self, scale: Tensor, *numbers: float) -> None:
        """Launch the kernel; `numbers` as it names them, from the rate on."""
        assert self._moments is not None
        states = self._masters, self._gradients, *self._moments
        offsets = [self._table.offsets(tensors) for tensors in states]
        self._blocks.step_and_quantise(states, offsets, self._decay_table, scale, *numbers)

    def _sum_of_squares(self) -> Tensor:
        """Of this rank's gradients; those that are as a product left them need not be read."""
        known = [squares for gradient in self._gradients if (squares := squares_of(gradient)) is not None]
        return torch.stack(known).sum() if len(known) == len(self._gradients) else super()._sum_of_squares()
