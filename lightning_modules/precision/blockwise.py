"""Linear layers and grouped experts in blockwise FP8 (arXiv 2412.19437, sections 3.3.1 and 3.3.2).

Activations and gradients are quantised in tiles of 1×128, weights in blocks of 128×128. The product for the weight's
gradient sums over rows, so both of its operands are quantised in tiles of 128×1. Everything is E4M3, and every scale
comes from the very numbers it is for. On a GPU with the kernels they run; elsewhere the emulation computes the same.
"""

from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from lightning_modules.precision import emulation
from lightning_modules.precision.emulation import Quantised
from lightning_modules.precision.kernels import blockwise as kernels


class BlockwiseLinear(nn.Linear):
    """A linear layer whose three products run in blockwise FP8. It takes over a plain layer's class, not its weight."""

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., K] to [..., N], in the type autocast asks for, or else that of `x`."""
        x = as_autocast(x)
        y = _BlockwiseLinear.apply(x.flatten(0, -2), self.weight).unflatten(0, x.shape[:-1])
        return y if self.bias is None else y + self.bias.to(y.dtype)


def blockwise_grouped_mm(rows: Tensor, weight: Tensor, offsets: Tensor) -> Tensor:
    """Every expert's rows times its transposed weight, all three products in blockwise FP8.

    Args:
        rows: [R, K] in order of experts.
        weight: [E, N, K].
        offsets: [E] int32, where each expert's rows end.

    Returns:
        [R, N], in the type autocast asks for, or else that of `rows`.
    """
    return _BlockwiseGroupedMM.apply(as_autocast(rows), weight, offsets)


def quantise_rows(rows: Tensor) -> Quantised:
    """Quantise routed rows [R, K] as the experts' products will, so that they can travel to their experts in FP8."""
    return (kernels if kernels.available(rows.device) else emulation).quantise_1x128(rows)


def runs_on_kernels(weight_shape: torch.Size, device: torch.device) -> bool:
    """Whether products with a weight [..., N, K] on `device` run in real FP8."""
    return kernels.available(device) and kernels.fits(weight_shape[-2], weight_shape[-1])


def as_autocast(x: Tensor) -> Tensor:
    """`x` in the type autocast asks for, where it is on: it knows nothing of products outside torch's own."""
    if torch.is_autocast_enabled(x.device.type):
        return x.to(torch.get_autocast_dtype(x.device.type))
    return x


class _BlockwiseLinear(torch.autograd.Function):
    """y = x · Wᵀ; keeps `x` for the backward pass as FP8 tiles of 128×1, rounded once from the original."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        fp8 = _implementation(weight)
        with torch.autocast(x.device.type, enabled=False):
            kept = fp8.quantise_128x1(x) if ctx.needs_input_grad[1] else (None, None)
            ctx.save_for_backward(weight, *kept)
            ctx.input_dtype = x.dtype
            return _linear_forward(x, weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None]:
        weight, values, scales = ctx.saved_tensors
        gradient = gradients[0].contiguous()
        fp8 = _implementation(weight)
        grad_input = grad_weight = None
        with torch.autocast(gradient.device.type, enabled=False):
            if ctx.needs_input_grad[0]:
                quantised = fp8.quantise_1x128(gradient), _quantised_for_transpose(fp8, weight)
                grad_input = fp8.linear_grad_input(*quantised, ctx.input_dtype)
            if ctx.needs_input_grad[1]:
                tiles = fp8.quantise_128x1(gradient), Quantised(values, scales)
                grad_weight = fp8.linear_grad_weight(*tiles, weight.dtype)
        return grad_input, grad_weight


class _BlockwiseGroupedMM(torch.autograd.Function):
    """`_BlockwiseLinear` of every expert over its own rows; tiles of 128×1 begin anew with each expert."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, offsets: Tensor) -> Tensor:
        fp8 = _implementation(weight)
        with torch.autocast(rows.device.type, enabled=False):
            kept = fp8.quantise_grouped_128x1(rows, offsets) if ctx.needs_input_grad[1] else (None, None)
            ctx.save_for_backward(weight, offsets, *kept)
            ctx.input_dtype = rows.dtype
            return _grouped_forward(rows, weight, offsets)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        weight, offsets, values, scales = ctx.saved_tensors
        gradient = gradients[0].contiguous()
        fp8 = _implementation(weight)
        grad_rows = grad_weight = None
        with torch.autocast(gradient.device.type, enabled=False):
            if ctx.needs_input_grad[0]:
                quantised = fp8.quantise_1x128(gradient), _quantised_for_transpose(fp8, weight)
                grad_rows = fp8.grouped_grad_input(*quantised, offsets, ctx.input_dtype)
            if ctx.needs_input_grad[1]:
                tiles = fp8.quantise_grouped_128x1(gradient, offsets), Quantised(values, scales)
                grad_weight = fp8.grouped_grad_weight(*tiles, offsets, weight.dtype)
        return grad_rows, grad_weight, None


# One operation quantises and multiplies, so that whoever keeps the product when activations are recomputed need not
# quantise its operands again.
@torch.library.custom_op("melisma::blockwise_linear", mutates_args=())
def _linear_forward(x: Tensor, weight: Tensor) -> Tensor:
    fp8 = _implementation(weight)
    return fp8.linear_forward(fp8.quantise_1x128(x), fp8.quantise_128x128(weight), x.dtype)


@_linear_forward.register_fake
def _(x: Tensor, weight: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0])


@torch.library.custom_op("melisma::blockwise_grouped_mm", mutates_args=())
def _grouped_forward(rows: Tensor, weight: Tensor, offsets: Tensor) -> Tensor:
    fp8 = _implementation(weight)
    return fp8.grouped_forward(fp8.quantise_1x128(rows), fp8.quantise_128x128(weight), offsets, rows.dtype)


@_grouped_forward.register_fake
def _(rows: Tensor, weight: Tensor, offsets: Tensor) -> Tensor:
    return rows.new_empty(rows.shape[0], weight.shape[1])


def _quantised_for_transpose(fp8: ModuleType, weight: Tensor) -> Quantised:
    """`weight` [..., N, K] in square blocks, with N side by side in memory, which the product over N wants."""
    transposed = fp8.quantise_128x128(weight.mT)
    return Quantised(transposed.values.mT, transposed.scales.mT)


def _implementation(weight: Tensor) -> ModuleType:
    return kernels if runs_on_kernels(weight.shape, weight.device) else emulation
