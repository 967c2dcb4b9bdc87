"""What training in FP8 rounds together, and what it leaves alone, found out by running the recipe."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from lightning_modules.model.decoder import Decoder
from lightning_modules.precision.recipes import RECIPES, convert_to_fp8

# Twice as wide as the widest tile there could be.
WIDTH = 512


def forward_tiles() -> str:
    """Numbers of an activation that share a scale in a layer's forward product."""
    layer = _fp8_layer(torch.eye(WIDTH))
    return _tile(lambda x: layer(x).detach())


def weight_tiles() -> str:
    """Numbers of a weight that share a scale."""

    def rounded(weight: Tensor) -> Tensor:
        return _fp8_layer(weight)(torch.eye(WIDTH)).detach().T

    return _tile(rounded)


def gradient_tiles() -> str:
    """Numbers of an output's gradient that share a scale where the input's gradient is computed from it."""
    layer = _fp8_layer(torch.eye(WIDTH))

    def rounded(gradient: Tensor) -> Tensor:
        x = torch.zeros(WIDTH, WIDTH, requires_grad=True)
        (result,) = torch.autograd.grad(layer(x), x, gradient)
        return result

    return _tile(rounded)


def weight_gradient_tiles() -> str:
    """Numbers of an activation that share a scale where the weight's gradient is computed from it."""
    layer = _fp8_layer(torch.eye(WIDTH))

    def rounded(x: Tensor) -> Tensor:
        (result,) = torch.autograd.grad(layer(x), layer.weight, torch.eye(WIDTH))
        return result

    return _tile(rounded)


def high_precision_matrices(decoder: Decoder) -> str:
    """Modules of the decoder whose matrices are not multiplied in FP8, by the last part of their names."""
    converted = copy.deepcopy(decoder)
    convert_to_fp8(converted, RECIPES["fp8_deepseek"])
    kept = set()
    for (name, before), after in zip(decoder.named_modules(), converted.modules(), strict=True):
        has_matrix = any(parameter.ndim >= 2 for parameter in before.parameters(recurse=False))
        is_same = type(before) is type(after)
        uses_same_product = getattr(before, "grouped_mm", None) is getattr(after, "grouped_mm", None)
        if has_matrix and is_same and uses_same_product:
            kept.add(name.rpartition(".")[2])
    return ", ".join(sorted(kept))


def _fp8_layer(weight: Tensor) -> nn.Linear:
    holder = nn.Sequential(nn.Linear(WIDTH, WIDTH, bias=False))
    convert_to_fp8(holder, RECIPES["fp8_deepseek"])
    layer = holder[0]
    assert isinstance(layer, nn.Linear)
    with torch.no_grad():
        layer.weight.copy_(weight)
    return layer


def _tile(rounded: Callable[[Tensor], Tensor]) -> str:
    """The extent, rows × columns, of what is rounded otherwise once the first number is very large.

    Numbers that share its scale are then too small for E4M3 and vanish; a product with the identity shows the rounding.
    """
    x = torch.rand(WIDTH, WIDTH, generator=torch.Generator().manual_seed(0)) + 1
    x[0, 0] = 1e9
    vanished = rounded(x) == 0
    if not vanished.any():
        return "1 × 1"
    rows, columns = (int(vanished.any(dim=dim).nonzero().max()) + 1 for dim in (1, 0))
    return f"{rows} × {columns}"
