"""Rows and matrices that kernels of a step are tried on, and how their results are held against exact ones."""

import pytest
import torch
from torch import Tensor

from lightning_modules.model.kernels.latent_append import Remembered

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = [torch.float32] if DEVICE == "cpu" else [torch.float32, torch.bfloat16]
both_types = pytest.mark.parametrize("dtype", DTYPES)
EPSILON = 1e-6


def draw(*shape: int, dtype: torch.dtype) -> Tensor:
    return (torch.randn(*shape, device=DEVICE) / shape[-1] ** 0.5).to(dtype)


def normalised(x: Tensor, weight: Tensor) -> Tensor:
    """RMS norm, rounded to the type of its input, in double precision."""
    exact = x.double() * torch.rsqrt(x.double().square().mean(dim=-1, keepdim=True) + EPSILON) * weight.double()
    return exact.to(x.dtype).double()


def assert_rounded(actual: Tensor, expected: Tensor) -> None:
    """In BF16, an input of a sum or the sum itself may have been rounded the other way."""
    tolerance = 2e-6 if actual.dtype == torch.float32 else 2**-7
    error = (actual.double() - expected).abs().max() / expected.abs().max()
    assert error < tolerance, float(error)


def draw_remembered(n_rows: int, rope_dim: int, interleaves: bool, dtype: torch.dtype) -> Remembered:
    """What one new token of each row is remembered by, on its way into an empty cache."""
    rank = 20
    angles = torch.randn(n_rows, 1, rope_dim // 2, device=DEVICE)
    return Remembered(
        draw(n_rows, 1, rank + rope_dim, dtype=dtype),
        draw(rank, dtype=dtype) + 1,
        angles.cos(),
        angles.sin(),
        torch.zeros(n_rows, 6, rank, dtype=dtype, device=DEVICE),
        torch.zeros(n_rows, 6, rope_dim, dtype=dtype, device=DEVICE),
        torch.arange(n_rows, device=DEVICE),
        EPSILON,
        interleaves,
    )
