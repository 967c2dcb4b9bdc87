"""Linear layers, SwiGLU networks and experts in FP8, by blocks (arXiv 2412.19437, sections 3.3.1 and 3.3.2) or by rows.

By blocks, activations and gradients are quantised in tiles of 1×128, weights in blocks of 128×128. The product for the
weight's gradient sums over rows, so both of its operands are quantised in tiles of 128×1. Everything is E4M3, and every
scale comes from the very numbers it is for. On a GPU with the kernels they run; elsewhere the emulation computes the
same.

The modules take over plain ones' class, not their weights, and are told their `scaling`.
"""

from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from lightning_modules.model.dispatch import Choice, TokenDispatcher
from lightning_modules.model.experts import FeedForward, GroupedExperts, MixtureOfExperts
from lightning_modules.model.sharded import is_sharded, local
from lightning_modules.precision import emulation
from lightning_modules.precision.autocast import as_autocast
from lightning_modules.precision.emulated_products import EmulatedGroupedMM, EmulatedLinear
from lightning_modules.precision.emulation import BLOCK, Quantised
from lightning_modules.precision.kernel_products import KernelExperts, KernelFeedForward, KernelLinear
from lightning_modules.precision.kernels import blockwise as kernels
from lightning_modules.precision.kernels.layouts import BothLayouts, Copy, Plan, halves_by_rows, room_for_weight
from lightning_modules.precision.scaled_products import scaled_linear
from lightning_modules.precision.scaling import Scaling


class KeepsCopies(nn.Module):
    """A module that can keep its weights quantised, so that they are rounded when they change and not when they are
    multiplied. Of the weights themselves only shapes, types and gradients then have to stay.

    Attributes:
        copies: quantised weights, as BothLayouts names them, one's after the other's; empty where none are kept.
        scaling: what of them, and of all that they are multiplied with, shares one scale.
    """

    copies: tuple[Tensor, ...] = ()
    scaling = Scaling.BLOCKWISE

    @staticmethod
    def weights_of(module: Any) -> tuple[Tensor, ...]:
        """The weights of a module with this one's parameters, as they are multiplied."""
        raise NotImplementedError

    @classmethod
    def parameters_of(cls, module: Any) -> tuple[Tensor, ...]:
        """What the weights consist of."""
        return cls.weights_of(module)

    @torch.no_grad()
    def keep_copies(self) -> bool:
        """Make room for the copies, which the next `renew_copies` fills; only of weights that are whole.

        Returns:
            Whether copies are kept.
        """
        if not self._is_whole():
            return False
        weights = self.weights_of(self)
        if not all(runs_on_kernels(weight.shape, weight.device) for weight in weights):
            return False
        rooms = (room_for_weight(local(weight).shape, weight.device) for weight in weights)
        self.copies = tuple(tensor for room in rooms for tensor in room)
        for parameter in self.parameters_of(self):
            if not is_sharded(parameter):
                parameter.data = parameter.data.new_zeros(()).expand(parameter.shape)
        return True

    def _is_whole(self) -> bool:
        """Whether nothing of the weights has to be gathered before they are multiplied."""
        return not any(is_sharded(parameter) for parameter in self.parameters())

    @torch.no_grad()
    def renew_copies(self, source: nn.Module) -> None:
        """Round the weights of `source`, a module with this one's parameters."""
        for weight, copy in zip(self.weights_of(source), self.quantised(), strict=True):
            kernels.quantise_weight_into(local(weight), copy)

    def quantised(self) -> list[Copy]:
        """The copies, weight by weight."""
        firsts = range(0, len(self.copies), 4)
        return [Copy(BothLayouts(*self.copies[first : first + 4]), self.scaling) for first in firsts]

    def quantised_parameters(self) -> list[Copy]:
        """The copies of `parameters_of`, which share memory with those of the weights."""
        return self.quantised()


def keep_copies(module: nn.Module) -> list[KeepsCopies]:
    """Let what can within `module` keep its weights quantised, and whatever is inside of it not once more."""
    if isinstance(module, KeepsCopies) and module.keep_copies():
        return [module]
    return [keeper for child in module.children() for keeper in keep_copies(child)]


class QuantisedLinear(KeepsCopies, nn.Linear):
    """A linear layer whose three products run in FP8."""

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., K] to [..., N], in the type autocast asks for, or else that of `x`."""
        x = as_autocast(x)
        y = self._multiply(x.flatten(0, -2)).unflatten(0, x.shape[:-1])
        return y if self.bias is None else y + self.bias.to(y.dtype)

    @staticmethod
    def weights_of(module: Any) -> tuple[Tensor, ...]:
        """The only one."""
        return (module.weight,)

    def _multiply(self, x: Tensor) -> Tensor:
        if runs_on_kernels(self.weight.shape, self.weight.device):
            return KernelLinear.apply(self.scaling, x, self.weight, *self.copies)
        if self.scaling is Scaling.BLOCKWISE:
            return EmulatedLinear.apply(x, self.weight)
        return scaled_linear(x, self.weight, self.scaling)


class QuantisedFeedForward(KeepsCopies, FeedForward):
    """SwiGLU whose products run in FP8, and whose activation is quantised where it is computed."""

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., D] to [..., D]."""
        if not self._is_fused():
            return super().forward(x)
        x = as_autocast(x)
        weights = self.gate_proj.weight, self.up_proj.weight, self.down_proj.weight
        y = KernelFeedForward.apply(self.scaling, x.flatten(0, -2), *weights, *self.copies)
        return y.unflatten(0, x.shape[:-1])

    @staticmethod
    def weights_of(module: Any) -> tuple[Tensor, ...]:
        """The gate's above the up projection's, which take one input, and the down projection's."""
        return torch.cat((module.gate_proj.weight, module.up_proj.weight)), module.down_proj.weight

    @classmethod
    def parameters_of(cls, module: Any) -> tuple[Tensor, ...]:
        """All three."""
        return module.gate_proj.weight, module.up_proj.weight, module.down_proj.weight

    def quantised_parameters(self) -> list[Copy]:
        """Of the gate and of the up projection the halves of what is stacked."""
        stacked, down = self.quantised()
        return [*(Copy(half, self.scaling) for half in halves_by_rows(stacked.layouts)), down]

    def keep_copies(self) -> bool:
        """Not where the layers within multiply."""
        return self._is_fused() and super().keep_copies()

    def _is_fused(self) -> bool:
        """Whether blocks of 128 rows end where the gate's weight does."""
        weight = self.down_proj.weight
        return runs_on_kernels(weight.shape, weight.device) and weight.shape[-1] % BLOCK == 0


class QuantisedExperts(KeepsCopies, GroupedExperts):
    """Experts whose products run in FP8, and whose activations are quantised where they are computed."""

    def forward(self, rows: Tensor, gates: Tensor, rows_per_expert: Tensor) -> Tensor:
        """Apply expert e to its `rows_per_expert[e]` rows of `rows` [R, D], each of which counts `gates` [R] times."""
        if not _runs_on_kernels(self):
            return super().forward(rows, gates, rows_per_expert)
        offsets = rows_per_expert.cumsum(0).to(torch.int32)
        return self._compute(rows, gates[:, None], kernels.plan_rows(offsets, rows.shape[0]))

    def mix(self, choice: Choice, room: int) -> Tensor:
        """Send tokens [N, D] through those experts that live here, and sum these up by their gates.

        Args:
            choice: where an expert below zero lives elsewhere.
            room: rows that there is room for.
        """
        plan = kernels.plan_choices(choice.indices, local(self.gate_up_proj).shape[0], room)
        return self._compute(choice.tokens, choice.gates, plan)

    @staticmethod
    def weights_of(module: Any) -> tuple[Tensor, ...]:
        """Both stacks."""
        return module.gate_up_proj, module.down_proj

    def keep_copies(self) -> bool:
        """Where products of both stacks run on kernels."""
        return _runs_on_kernels(self) and super().keep_copies()

    def _is_whole(self) -> bool:
        """Experts that are spread over ranks are whole where they live, unless FSDP shards them or their block."""
        meshes = [getattr(parameter, "device_mesh", None) for parameter in self.parameters()]
        return all(mesh is None or mesh.mesh_dim_names == ("ep",) for mesh in meshes)

    def _compute(self, tokens: Tensor, gates: Tensor, plan: Plan) -> Tensor:
        weights = local(self.gate_up_proj), local(self.down_proj)
        return KernelExperts.apply(self.scaling, as_autocast(tokens), gates, *weights, *plan, *self.copies)


class QuantisedMixture(MixtureOfExperts):
    """A mixture that quantises tokens as it copies them to the experts that live here."""

    def apply_routed(self, plan: Any) -> Tensor:
        """What the routed experts make of the tokens of a dispatcher's plan [N, D]."""
        if _runs_on_kernels(self.experts) and isinstance(self.dispatcher, TokenDispatcher):
            gathered = self.dispatcher.gather(plan)
            if gathered is not None:
                return self.dispatcher.add_up(self.experts.mix(*gathered))
        return super().apply_routed(plan)


def blockwise_grouped_mm(rows: Tensor, weight: Tensor, offsets: Tensor) -> Tensor:
    """Every expert's rows times its transposed weight, all three products in emulated blockwise FP8.

    Args:
        rows: [R, K] in order of experts.
        weight: [E, N, K].
        offsets: [E] int32, where each expert's rows end.

    Returns:
        [R, N], in the type autocast asks for, or else that of `rows`.
    """
    return EmulatedGroupedMM.apply(as_autocast(rows), weight, offsets)


def quantise_rows(rows: Tensor) -> Quantised:
    """Quantise routed rows [R, K] as the experts' products will, so that they can travel to their experts in FP8."""
    return (kernels if kernels.available(rows.device) else emulation).quantise_1x128(rows)


def runs_on_kernels(weight_shape: torch.Size, device: torch.device) -> bool:
    """Whether products with a weight [..., N, K] on `device` run in real FP8."""
    return kernels.available(device) and kernels.fits(weight_shape[-2], weight_shape[-1])


def _runs_on_kernels(experts: nn.Module) -> TypeGuard[QuantisedExperts]:
    return isinstance(experts, QuantisedExperts) and all(
        runs_on_kernels(weight.shape, weight.device) for weight in experts.weights_of(experts)
    )
