"""The three products of a linear layer and of experts in emulated blockwise FP8, for devices without kernels."""

from typing import Any

import torch
from torch import Tensor

from lightning_modules.precision import emulation
from lightning_modules.precision.emulation import Quantised


class EmulatedLinear(torch.autograd.Function):
    """y = x · Wᵀ; keeps `x` for the backward pass as FP8 tiles of 128×1, rounded once from the original."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        """Map [M, K] by [N, K] to [M, N]."""
        with torch.autocast(x.device.type, enabled=False):
            kept = emulation.quantise_128x1(x) if ctx.needs_input_grad[1] else (None, None)
            ctx.save_for_backward(weight, *kept)
            ctx.input_dtype = x.dtype
            return _linear_forward(x, weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Gradients of the input and of the weight."""
        weight, values, scales = ctx.saved_tensors
        gradient = gradients[0].contiguous()
        grad_input = grad_weight = None
        with torch.autocast(gradient.device.type, enabled=False):
            if ctx.needs_input_grad[0]:
                quantised = emulation.quantise_1x128(gradient), emulation.quantise_128x128(weight)
                grad_input = emulation.linear_grad_input(*quantised, ctx.input_dtype)
            if ctx.needs_input_grad[1]:
                tiles = emulation.quantise_128x1(gradient), Quantised(values, scales)
                grad_weight = emulation.linear_grad_weight(*tiles, weight.dtype)
        return grad_input, grad_weight


class EmulatedGroupedMM(torch.autograd.Function):
    """`EmulatedLinear` of every expert over its own rows; tiles of 128×1 begin anew with each expert."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, offsets: Tensor) -> Tensor:
        """Map [R, K] by [E, N, K] to [R, N]."""
        with torch.autocast(rows.device.type, enabled=False):
            kept = emulation.quantise_grouped_128x1(rows, offsets) if ctx.needs_input_grad[1] else (None, None)
            ctx.save_for_backward(weight, offsets, *kept)
            ctx.input_dtype = rows.dtype
            return _grouped_forward(rows, weight, offsets)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        """Gradients of the rows and of the weights."""
        weight, offsets, values, scales = ctx.saved_tensors
        gradient = gradients[0].contiguous()
        grad_rows = grad_weight = None
        with torch.autocast(gradient.device.type, enabled=False):
            if ctx.needs_input_grad[0]:
                quantised = emulation.quantise_1x128(gradient), emulation.quantise_128x128(weight)
                grad_rows = emulation.grouped_grad_input(*quantised, offsets, ctx.input_dtype)
            if ctx.needs_input_grad[1]:
                tiles = emulation.quantise_grouped_128x1(gradient, offsets), Quantised(values, scales)
                grad_weight = emulation.grouped_grad_weight(*tiles, offsets, weight.dtype)
        return grad_rows, grad_weight, None


# One operation quantises and multiplies, so that whoever keeps the product when activations are recomputed need not
# quantise its operands again.
@torch.library.custom_op("melisma::blockwise_linear", mutates_args=())
def _linear_forward(x: Tensor, weight: Tensor) -> Tensor:
    return emulation.linear_forward(emulation.quantise_1x128(x), emulation.quantise_128x128(weight), x.dtype)


@_linear_forward.register_fake
def _(x: Tensor, weight: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0])


@torch.library.custom_op("melisma::blockwise_grouped_mm", mutates_args=())
def _grouped_forward(rows: Tensor, weight: Tensor, offsets: Tensor) -> Tensor:
    quantised = emulation.quantise_1x128(rows), emulation.quantise_128x128(weight)
    return emulation.grouped_forward(*quantised, offsets, rows.dtype)


@_grouped_forward.register_fake
def _(rows: Tensor, weight: Tensor, offsets: Tensor) -> Tensor:
    return rows.new_empty(rows.shape[0], weight.shape[1])
