"""Products of BF16 rows with FP32 matrices on the tensor cores, as exact as in FP32.

An FP32 number is the sum of three BF16 numbers, and a product of two BF16 numbers is exact in FP32, in which tensor
cores add up. Three parts side by side are one product of BF16 matrices: far less than an FP32 product costs a GPU.
"""

from typing import Any

import torch
from torch import Tensor


def exact_linear(rows: Tensor, weight: Tensor) -> Tensor:
    """`rows` [R, D] in BF16 times `weight` [E, D] in FP32, transposed: [R, E] in FP32, on a GPU."""
    return _ExactLinear.apply(rows, weight)


def bf16_parts(x: Tensor, n_parts: int) -> list[Tensor]:
    """BF16 tensors whose sum is `x` to 8 bits a part; three hold all 24 of FP32."""
    parts, rest = [], x
    for _ in range(n_parts):
        parts.append(rest.to(torch.bfloat16))
        rest = rest - parts[-1].float()
    return parts


class _ExactLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(rows, weight)
        parts = torch.cat(bf16_parts(weight, 3))
        return torch.mm(rows, parts.mT, out_dtype=torch.float32).unflatten(1, (3, -1)).sum(dim=1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        rows, weight = ctx.saved_tensors
        gradient_parts = bf16_parts(gradients[0], 3)
        of_weight = torch.mm(torch.cat(gradient_parts, dim=1).mT, rows, out_dtype=torch.float32)
        # What is rounded to BF16 in the end needs products of leading parts alone.
        high, low = bf16_parts(weight, 2)
        of_rows = torch.cat((gradient_parts[0], gradient_parts[1], gradient_parts[0]), dim=1) @ torch.cat(
            (high, high, low)
        )
        return of_rows, of_weight.unflatten(0, (3, -1)).sum(dim=0)
