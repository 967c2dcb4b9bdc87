"""Rotary position embedding as DeepSeek-V3 has it, in FP32, with its extension to longer contexts.

P rotary dimensions of a head, in P / 2 pairs.
"""

import math

import torch
from torch import Tensor

from lightning_modules.model import by_hand
from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.model.yarn import YarnConfig


def rotary_cos_sin(positions: Tensor, config: DecoderConfig) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary angles.

    Args:
        positions: integer positions [..., T].
        config: the decoder's architecture.

    Returns:
        Two FP32 tensors [..., T, P / 2]. FP32 whatever the activations are: rounding the angles' cosines to BF16
        moves attention logits by up to 0.03.
    """
    angles = positions[..., None].float() * inverse_frequencies(config, positions.device)
    scale = 1.0 if config.rope_scaling is None else config.rope_scaling.rotary_scale
    if scale == 1:
        return angles.cos(), angles.sin()
    return angles.cos() * scale, angles.sin() * scale


def inverse_frequencies(config: DecoderConfig, device: torch.device | str = "cpu") -> Tensor:
    """Radians that one position turns each pair by, FP32 [P / 2]."""
    dim, theta = config.rotary_dim, config.rope_theta
    exponents = torch.arange(0, dim, 2, dtype=torch.float32, device=device) / dim
    if config.rope_scaling is None:
        return theta**-exponents
    return _yarn_frequencies(config.rope_scaling, theta**exponents, dim, theta)


def attention_scale(config: DecoderConfig) -> float:
    """The factor of attention logits: the head's width to the power -1/2, with YaRN times its squared magnitude."""
    scale = config.qk_head_dim**-0.5
    if config.rope_scaling is None:
        return scale
    magnitude = config.rope_scaling.attention_magnitude
    return scale * magnitude * magnitude


def rotate(x: Tensor, cos: Tensor, sin: Tensor, interleaves: bool = True) -> Tensor:
    """Rotate the pairs of the last dimension of `x` [..., T, P] by the given angles [..., T, P / 2].

    `interleaves` says what a pair is: adjacent dimensions (0, 1), (2, 3), … as DeepSeek lays them out, or, where it is
    false, those half a head apart: (0, P / 2), (1, P / 2 + 1), …
    """
    if interleaves and by_hand.applies_to(x):
        return turn(x.float(), torch.complex(cos, sin)).type_as(x)
    first, second = x.float().unflatten(-1, (-1, 2)).unbind(-1) if interleaves else x.float().chunk(2, dim=-1)
    rotated = (first * cos - second * sin, second * cos + first * sin)
    if interleaves:
        return torch.stack(rotated, dim=-1).flatten(-2).type_as(x)
    return torch.cat(rotated, dim=-1).type_as(x)


def turn(x: Tensor, angles: Tensor, interleaves: bool = True) -> Tensor:
    """`rotate` of FP32 `x` by `angles` [..., T, P / 2] as complex numbers, in one pass: a pair is one, too."""
    if interleaves:
        pairs = torch.view_as_complex(x.contiguous().unflatten(-1, (-1, 2)))
        return torch.view_as_real(pairs * angles).flatten(-2)
    turned = torch.complex(*x.chunk(2, dim=-1)) * angles
    return torch.cat((turned.real, turned.imag), dim=-1)


def _yarn_frequencies(yarn: YarnConfig, wavelengths: Tensor, dim: int, theta: float) -> Tensor:
    """Fast pairs as they were, slow ones slowed `factor` times, those between on a ramp (arXiv 2309.00071, 3.2).

    Args:
        yarn: how far, and where the ramp lies.
        wavelengths: positions a radian, FP32 [P / 2].
        dim: P.
        theta: base of the wavelengths.
    """

    def pair_that_turns(times: float) -> float:
        """Which pair turns this often over the original context."""
        return dim * math.log(yarn.original_max_position_embeddings / (times * 2 * math.pi)) / (2 * math.log(theta))

    first, last = pair_that_turns(yarn.beta_fast), pair_that_turns(yarn.beta_slow)
    if yarn.truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, dim - 1)
    pairs = torch.arange(dim // 2, dtype=torch.float32, device=wavelengths.device)
    # Where the ramp has no length, it is a step.
    ramp = ((pairs - first) / (last - first or 0.001)).clamp(0, 1)
    kept = 1 - ramp
    return 1 / (yarn.factor * wavelengths) * (1 - kept) + 1 / wavelengths * kept
