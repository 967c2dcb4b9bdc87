"""RMSNorm of many rows, read and written once."""

# Kernels are typed by what they are compiled for, and their compile-time constants are capitals.
# mypy: allow-untyped-defs
# ruff: noqa: N803

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

from lightning_modules.model.kernels.dependent_launch import dependent_launch, launch_dependents, wait_for_previous


def normalise(norm: nn.RMSNorm, rows: Tensor) -> Tensor:
    """What `norm` makes of `rows` [N, D], contiguous but for the step from one to the next; sums are FP32."""
    n_rows, width = rows.shape
    normalised = torch.empty(n_rows, width, dtype=rows.dtype, device=rows.device)
    _normalise[(n_rows,)](
        rows,
        norm.weight,
        normalised,
        rows.stride(0),
        norm.eps,
        WIDTH=width,
        WIDTH_BLOCK=triton.next_power_of_2(width),
        num_warps=4,
        **dependent_launch(rows.device),
    )
    return normalised


@triton.jit
def _normalise(
    rows,  # [N, D]
    weight,  # [D]
    normalised,  # [N, D]
    row_stride,
    epsilon,
    WIDTH: tl.constexpr,
    WIDTH_BLOCK: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    launch_dependents(DEPENDENT)
    wait_for_previous(DEPENDENT)
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, WIDTH_BLOCK)
    inside = column < WIDTH
    numbers = tl.load(rows + row * row_stride + column, mask=inside, other=0.0).to(tl.float32)
    numbers *= tl.rsqrt(tl.sum(numbers * numbers, axis=0) / WIDTH + epsilon)
    numbers *= tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(normalised + row * WIDTH + column, numbers.to(normalised.dtype.element_ty), mask=inside)
