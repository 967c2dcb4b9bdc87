"""Root mean square normalisation."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """weight · x / √(mean(x²) + eps) over the last dimension of `x` [..., D]; `weight` [D]."""
    return _RMSNorm.apply(x, weight, eps)


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        factor = length.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        normalised = x * factor
        ctx.save_for_backward(normalised, factor, weight)
        return normalised * weight

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        # With n = x · factor: ∂x = factor · (w · g − n · mean(n · w · g)).
        (gradient,) = gradients
        normalised, factor, weight = ctx.saved_tensors
        products = gradient * normalised
        of_weight = products.flatten(0, -2).sum(dim=0)
        shares = (products @ weight).unsqueeze(-1)
        of_x = (gradient * weight).addcmul_(normalised, shares, value=-1 / weight.numel()).mul_(factor)
        return of_x, of_weight, None
