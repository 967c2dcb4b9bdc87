"""Rotary position embedding on adjacent pairs, as DeepSeek lays them out, in FP32."""

import torch
from torch import Tensor


def rotary_cos_sin(positions: Tensor, dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary angles.

    Args:
        positions: integer positions [..., T].
        dim: rotary dimensions of a head (even).
        theta: base of the geometric frequencies.

    Returns:
        Two FP32 tensors [..., T, dim / 2]. FP32 whatever the activations are: rounding the angles' cosines to BF16
        moves attention logits by up to 0.03.
    """
    exponents = torch.arange(0, dim, 2, dtype=torch.float32, device=positions.device) / dim
    angles = positions[..., None].float() * theta**-exponents
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the adjacent pairs (0, 1), (2, 3), … of the last dimension of `x` [..., T, dim] by the given angles."""
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    rotated = torch.stack((even * cos - odd * sin, odd * cos + even * sin), dim=-1)
    return rotated.flatten(-2).type_as(x)
