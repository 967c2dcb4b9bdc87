"""Rows, weights and routings that FP8 kernels are tried on, and how their results are held against others."""

import pytest
import torch
from torch import Tensor

from lightning_modules.precision.kernels import blockwise
from lightning_modules.precision.kernels.layouts import BothLayouts, Plan

HOPPER = torch.cuda.is_available() and blockwise.available("cuda")
needs_hopper = pytest.mark.skipif(not HOPPER, reason="needs a Hopper GPU (compute capability 9.0)")

# Rows of each expert, features out, features in.
ROUTINGS = [
    ([256, 256], 256, 256),
    ([20, 0, 130], 176, 208),
    ([0, 0, 5, 0], 128, 576),
    ([1000, 24, 0, 3, 700, 129, 128, 1], 384, 192),
    ([0, 300, 0], 2048, 768),
]
# Rows, features out, features in.
LAYERS = [(256, 256, 256), (4096, 2048, 768), (1000, 576, 2048), (999, 512, 576), (7, 16, 16)]
# The tensor cores add up 128 FP8 products in fewer than FP32's 23 bits (arXiv 2412.19437, section 3.5.2).
TENSOR_CORE_ERROR = 3e-4


def numbers(n_rows: int, n_columns: int, device: str = "cuda", dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """Rows of magnitudes far apart, one of them zero."""
    x = torch.randn(n_rows, n_columns, device=device) * torch.logspace(-8, 8, n_rows, device=device)[:, None]
    x[n_rows // 2] = 0
    return x.to(dtype)


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Of rows' errors relative to their own size, the largest, so that large rows do not hide small ones."""
    difference = (actual.double() - expected).norm(dim=-1) / expected.norm(dim=-1).clamp_min(1e-300)
    return difference.max().item()


def assert_same(actual: Tensor, expected: Tensor) -> None:
    assert torch.equal(actual.float(), expected.float())


def along_tokens(quantised: BothLayouts) -> Tensor:
    """The transposed values of rows, turned back [P, K]."""
    return quantised.transposed.transpose(1, 2).flatten(0, 1)


def plan_of(counts: list[int]) -> tuple[Tensor, Tensor, Plan]:
    """As many choices as there are rows, shuffled: their order by expert, the experts' offsets, and their plan."""
    experts = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    indices = experts[torch.randperm(len(experts))].cuda()
    offsets = torch.tensor(counts, device="cuda").cumsum(0).to(torch.int32)
    return indices.argsort(stable=True), offsets, blockwise.plan_choices(indices, len(counts))
