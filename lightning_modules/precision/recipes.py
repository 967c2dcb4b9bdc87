"""Which parts of a decoder a recipe of FP8 takes over, and how.

High precision stays where arXiv 2412.19437, section 3.3.1, keeps it: embedding, output head, routers, norms and the
attention operator. Every other linear layer is quantised, the projection of multi-token prediction (`eh_proj`) with
them, since the paper does not except it; so are the experts.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from lightning_modules.model.decoder import Decoder
from lightning_modules.model.experts import FeedForward, GroupedExperts, MixtureOfExperts
from lightning_modules.model.router import Router
from lightning_modules.precision.blockwise import (
    BlockwiseExperts,
    BlockwiseFeedForward,
    BlockwiseLinear,
    BlockwiseMixture,
    blockwise_grouped_mm,
    runs_on_kernels,
)
from lightning_modules.precision.scaled_experts import ScaledGroupedMM, Scaling, runs_on_scaled_products

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """One way to train in FP8.

    Attributes:
        convert_linears: takes over the linear layers of these names within a module, in place.
        grouped_mm: what experts multiply their rows with (`GroupedExperts.grouped_mm`).
        runs_on: whether products with a weight of this shape run in real FP8 on this device.
        converted: classes that take over other modules, under the very class that these have.
    """

    convert_linears: Callable[[nn.Module, list[str]], None]
    grouped_mm: Callable[[Tensor, Tensor, Tensor], Tensor]
    runs_on: Callable[[torch.Size, torch.device], bool]
    converted: Mapping[type[nn.Module], type[nn.Module]] = field(default_factory=dict)


def _convert_blockwise(model: nn.Module, names: list[str]) -> None:
    for name in names:
        model.get_submodule(name).__class__ = BlockwiseLinear


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


RECIPES = {
    "fp8_deepseek": Recipe(
        _convert_blockwise,
        blockwise_grouped_mm,
        runs_on_kernels,
        {
            FeedForward: BlockwiseFeedForward,
            GroupedExperts: BlockwiseExperts,
            MixtureOfExperts: BlockwiseMixture,
        },
    ),
    "fp8_rowwise": Recipe(_convert_by_torchao("rowwise"), ScaledGroupedMM(Scaling.ROWWISE), runs_on_scaled_products),
    "fp8_tensorwise": Recipe(
        _convert_by_torchao("tensorwise"), ScaledGroupedMM(Scaling.TENSORWISE), runs_on_scaled_products
    ),
}


def convert_to_fp8(model: nn.Module, recipe: Recipe) -> None:
    """Let `model`, a decoder or what holds one, multiply by `recipe`; parameters and their names stay as they are."""
    if linears := [name for name in quantised_linears(model) if type(model.get_submodule(name)) is nn.Linear]:
        recipe.convert_linears(model, linears)
    for module in model.modules():
        if isinstance(module, GroupedExperts):
            module.grouped_mm = recipe.grouped_mm
        module.__class__ = recipe.converted.get(type(module), type(module))


def quantised_linears(model: nn.Module) -> list[str]:
    """Names of all linear layers within `model` but output heads and parts of routers."""
    excepted = [
        part
        for module in model.modules()
        for part in ([module.lm_head] if isinstance(module, Decoder) else module.modules())
        if isinstance(module, Decoder | Router)
    ]
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    return [name for name in names if not any(model.get_submodule(name) is part for part in excepted)]


def emulated_weights(model: nn.Module, kind: str, device: torch.device) -> tuple[int, int]:
    """How many weights of `model` are multiplied by emulation on `device`, and how many `kind` quantises at all."""
    weights = [model.get_parameter(f"{name}.weight") for name in quantised_linears(model)]
    for module in model.modules():
        if isinstance(module, GroupedExperts):
            weights += [module.gate_up_proj, module.down_proj]
    return sum(not RECIPES[kind].runs_on(weight.shape, device) for weight in weights), len(weights)


def report_emulation(model: nn.Module, kind: str, device: torch.device) -> None:
    """Say in one line how many weights of `model` are multiplied by emulation on `device`, if any are."""
    emulated, total = emulated_weights(model, kind, device)
    if emulated:
        log.warning(
            "precision=%s: %d of %d weights are multiplied by emulation on %s, which has no FP8 kernels for them:"
            " the same numerics, but slower than BF16.",
            kind,
            emulated,
            total,
            device,
        )
