"""Which parts of a decoder a recipe of FP8 takes over, and how.

High precision stays where arXiv 2412.19437, section 3.3.1, keeps it: embedding, output head, routers, norms and the
attention operator. Every other linear layer may be quantised, the projection of multi-token prediction (`eh_proj`) with
them, since the paper does not except it; so may the experts. Trainings leave those in BF16 that are faster so (`pays`).
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from lightning_modules.model.decoder import Decoder
from lightning_modules.model.experts import FeedForward, GroupedExperts, MixtureOfExperts
from lightning_modules.model.router import Router
from lightning_modules.precision.emulation import BLOCK
from lightning_modules.precision.quantised import (
    KeepsCopies,
    QuantisedExperts,
    QuantisedFeedForward,
    QuantisedLinear,
    QuantisedMixture,
    blockwise_grouped_mm,
    runs_on_kernels,
)
from lightning_modules.precision.scaled_products import ScaledGroupedMM, runs_on_scaled_products
from lightning_modules.precision.scaling import Scaling

log = logging.getLogger(__name__)

# Multiplications that a rounded number of a linear layer enters, from which on FP8 is no slower than BF16 on Hopper.
LEAST_REUSE = 440


@dataclass(frozen=True)
class Recipe:
    """One way to train in FP8.

    Attributes:
        scaling: what shares one scale.
        grouped_mm: what experts multiply their rows with where they have no kernels (`GroupedExperts.grouped_mm`).
        runs_on: whether products with a weight of this shape run in real FP8 on this device.
        convert_linears: takes over the linear layers of these names within a module, in place.
        converted: classes that take over other modules, under the very class that these have.
    """

    scaling: Scaling
    grouped_mm: Callable[[Tensor, Tensor, Tensor], Tensor]
    runs_on: Callable[[torch.Size, torch.device], bool]
    convert_linears: Callable[[nn.Module, list[str]], None]
    converted: Mapping[type[nn.Module], type[nn.Module]] = field(default_factory=dict)

    @property
    def keeps_copies(self) -> bool:
        """Whether weights are rounded once an optimizer step, where kernels run."""
        return bool(self.converted)


QUANTISED: Mapping[type[nn.Module], type[nn.Module]] = {
    FeedForward: QuantisedFeedForward,
    GroupedExperts: QuantisedExperts,
    MixtureOfExperts: QuantisedMixture,
}


def _convert_to_quantised(scaling: Scaling) -> Callable[[nn.Module, list[str]], None]:
    def convert(model: nn.Module, names: list[str]) -> None:
        for name in names:
            _take_over(model.get_submodule(name), QuantisedLinear, scaling)

    return convert


def _take_over(module: nn.Module, by: type[nn.Module], scaling: Scaling) -> None:
    module.__class__ = by
    if isinstance(module, KeepsCopies):
        module.scaling = scaling


def _convert_by_torchao(recipe: str) -> Callable[[nn.Module, list[str]], None]:
    def convert(model: nn.Module, names: list[str]) -> None:
        try:
            from lightning_modules.precision.torchao_linear import convert_linears
        except ImportError as error:
            raise ImportError(
                f"precision=fp8_{recipe} needs torchao, which cannot be imported ({error}). Install it with"
                " `pip install torchao==0.18.0`, or choose precision=fp8_deepseek, which does without."
            ) from error
        convert_linears(model, recipe, names)

    return convert


def _runs_on_either(weight_shape: torch.Size, device: torch.device) -> bool:
    """Products by rows are torch's own on GPUs that have no kernels of ours."""
    return runs_on_kernels(weight_shape, device) or runs_on_scaled_products(weight_shape, device)


RECIPES = {
    "fp8_deepseek": Recipe(
        Scaling.BLOCKWISE,
        blockwise_grouped_mm,
        runs_on_kernels,
        _convert_to_quantised(Scaling.BLOCKWISE),
        QUANTISED,
    ),
    "fp8_rowwise": Recipe(
        Scaling.ROWWISE,
        ScaledGroupedMM(Scaling.ROWWISE),
        _runs_on_either,
        _convert_to_quantised(Scaling.ROWWISE),
        QUANTISED,
    ),
    "fp8_tensorwise": Recipe(
        Scaling.TENSORWISE,
        ScaledGroupedMM(Scaling.TENSORWISE),
        runs_on_scaled_products,
        _convert_by_torchao("tensorwise"),
    ),
}


def everything(module: nn.Module) -> bool:
    """Take over whatever can be."""
    return True


def pays(module: nn.Module) -> bool:
    """Whether a linear layer, SwiGLU network or stack of experts takes no more time in FP8, rounding included."""
    if isinstance(module, GroupedExperts):
        return experts_pay(module.down_proj.shape[-1])
    if isinstance(module, FeedForward):
        return pays(module.down_proj)
    return not isinstance(module, nn.Linear) or linear_pays(module.out_features, module.in_features)


def linear_pays(out_features: int, in_features: int) -> bool:
    """For each token 3 · N · K multiplications get cheaper, and N + K numbers have to be rounded for them."""
    return out_features * in_features >= LEAST_REUSE * (out_features + in_features)


def experts_pay(intermediate_size: int) -> bool:
    """Rows are rounded as they are gathered, which BF16 does too; but SwiGLU has kernels for whole tiles alone."""
    return intermediate_size % BLOCK == 0


def convert_to_fp8(model: nn.Module, recipe: Recipe, takes: Callable[[nn.Module], bool] = everything) -> None:
    """Let `model`, a decoder or what holds one, multiply by `recipe`; parameters and their names stay as they are.

    Args:
        model: changed in place.
        recipe: one of RECIPES.
        takes: which of the modules that the recipe knows it is to take over.
    """
    names = quantised_linears(model, takes)
    if linears := [name for name in names if type(model.get_submodule(name)) is nn.Linear]:
        recipe.convert_linears(model, linears)
    for module in model.modules():
        if takes(module):
            if isinstance(module, GroupedExperts):
                module.grouped_mm = recipe.grouped_mm
            if by := recipe.converted.get(type(module)):
                _take_over(module, by, recipe.scaling)


def quantised_linears(model: nn.Module, takes: Callable[[nn.Module], bool] = everything) -> list[str]:
    """Names of the linear layers within `model` that `takes` accepts, but output heads and parts of routers."""
    excepted = [
        part
        for module in model.modules()
        for part in ([module.lm_head] if isinstance(module, Decoder) else module.modules())
        if isinstance(module, Decoder | Router)
    ]
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and takes(module)]
    return [name for name in names if not any(model.get_submodule(name) is part for part in excepted)]


def quantised_weights(model: nn.Module, takes: Callable[[nn.Module], bool] = everything) -> list[Tensor]:
    """Weights of `model` that a recipe quantises."""
    weights: list[Tensor] = [model.get_parameter(f"{name}.weight") for name in quantised_linears(model, takes)]
    for module in model.modules():
        if isinstance(module, GroupedExperts) and takes(module):
            weights += [module.gate_up_proj, module.down_proj]
    return weights


def n_emulated(weights: list[Tensor], kind: str, device: torch.device) -> int:
    """How many of `weights` are multiplied by emulation on `device`."""
    return sum(not RECIPES[kind].runs_on(weight.shape, device) for weight in weights)


def report_conversion(
    model: nn.Module, kind: str, device: torch.device, takes: Callable[[nn.Module], bool] = everything
) -> None:
    """Say in a line how many weights of `model` stay BF16, and in another how many are emulated on `device`."""
    weights, total = quantised_weights(model, takes), len(quantised_weights(model))
    if len(weights) < total:
        log.info(
            "precision=%s: %d of %d weights stay BF16, which is faster at their sizes.",
            kind,
            total - len(weights),
            total,
        )
    if emulated := n_emulated(weights, kind, device):
        log.warning(
            "precision=%s: %d of %d weights are multiplied by emulation on %s, which has no FP8 kernels for them:"
            " the same numerics, but slower than BF16.",
            kind,
            emulated,
            total,
            device,
        )
