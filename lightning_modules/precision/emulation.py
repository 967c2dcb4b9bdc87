"""Blockwise FP8 in plain torch: the numerics of arXiv 2412.19437, section 3.3, on any device and for any shape.

Every function here has a counterpart of the same name and meaning in `precision.kernels.blockwise`; this one is the
reference. A quantised tensor is a pair: E4M3 values, and FP32 scales such that value · scale gives the number back.
Blocks at the edge of a tensor may be partial.

Shapes: M rows of activations, K features in, N features out, R routed rows, E experts. ⌈a⌉ is ceil(a / 128).
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 128
E4M3 = torch.float8_e4m3fn
E4M3_MAX = torch.finfo(E4M3).max
# A block of zeros needs a scale as well; anything this small is zero beside it.
SMALLEST_AMAX = 1e-30


class Quantised(NamedTuple):
    """E4M3 values, and the FP32 scales of their blocks: value · scale is the number that was rounded."""

    values: Tensor
    scales: Tensor


def quantise_1x128(x: Tensor) -> Quantised:
    """Quantise `x` [..., M, K] in tiles of 128 along K, for products over K; scales [..., M, ⌈K⌉]."""
    return _quantise(x, 1, BLOCK)


def quantise_128x1(x: Tensor) -> Quantised:
    """Quantise `x` [..., M, K] in tiles of 128 along M, for products over M; scales [..., ⌈M⌉, K]."""
    return _quantise(x, BLOCK, 1)


def quantise_128x128(weight: Tensor) -> Quantised:
    """Quantise `weight` [..., N, K] in square blocks, which serve it and its transpose; scales [..., ⌈N⌉, ⌈K⌉]."""
    return _quantise(weight, BLOCK, BLOCK)


def quantise_grouped_128x1(rows: Tensor, offsets: Tensor) -> Quantised:
    """Quantise `rows` [R, K] in tiles of 128 rows that begin anew with each expert, so that none mixes two experts.

    Args:
        rows: routed rows in order of experts.
        offsets: [E] int32, where each expert's rows end; an expert may have none.

    Returns:
        Values [R, K], and scales [⌊R / 128⌋ + E, K]: expert after expert, ceil(rows / 128) tiles each. Scales beyond
        the last tile in use are one. Their number does not depend on the routing, so no host has to know it.
    """
    tiles = _tile_of_row(offsets, rows.shape[0])
    n_tiles = rows.shape[0] // BLOCK + offsets.shape[0]
    amax = rows.new_zeros(n_tiles, rows.shape[1], dtype=torch.float32)
    index = tiles[:, None].expand_as(rows)
    amax = amax.scatter_reduce(0, index, rows.float().abs(), "amax")
    used = torch.zeros(n_tiles, dtype=torch.bool, device=rows.device).index_fill(0, tiles, True)
    factor = torch.where(used[:, None], _factor(amax), 1.0)
    return Quantised(_round(rows.float() * factor[tiles]), factor.reciprocal())


def dequantise(quantised: Quantised, block: tuple[int, int], dtype: torch.dtype = torch.float32) -> Tensor:
    """The numbers that `quantised` [..., M, K] stands for, its blocks being `block` = (rows, columns)."""
    values, scales = quantised
    rows, columns = block
    spread = scales.repeat_interleave(rows, dim=-2)[..., : values.shape[-2], :] if rows > 1 else scales
    spread = spread.repeat_interleave(columns, dim=-1)[..., : values.shape[-1]] if columns > 1 else spread
    return (values.float() * spread).to(dtype)


def dequantise_grouped_128x1(quantised: Quantised, offsets: Tensor) -> Tensor:
    """The FP32 numbers that a pair from `quantise_grouped_128x1` stands for [R, K]."""
    values, scales = quantised
    return values.float() * scales[_tile_of_row(offsets, values.shape[0])]


def linear_forward(x: Quantised, weight: Quantised, output_dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """y = x · Wᵀ: [M, K] in 1×128 tiles by [N, K] in 128×128 blocks gives [M, N]."""
    product = dequantise(x, (1, BLOCK)) @ dequantise(weight, (BLOCK, BLOCK)).mT
    return product.to(output_dtype)


def linear_grad_input(gradient: Quantised, weight: Quantised, output_dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """dx = dy · W: [M, N] in 1×128 tiles by [N, K] in 128×128 blocks gives [M, K]."""
    product = dequantise(gradient, (1, BLOCK)) @ dequantise(weight, (BLOCK, BLOCK))
    return product.to(output_dtype)


def linear_grad_weight(gradient: Quantised, x: Quantised, output_dtype: torch.dtype = torch.float32) -> Tensor:
    """dW = dyᵀ · x: [M, N] by [M, K], both in 128×1 tiles, gives [N, K]."""
    product = dequantise(gradient, (BLOCK, 1)).mT @ dequantise(x, (BLOCK, 1))
    return product.to(output_dtype)


def grouped_forward(
    rows: Quantised, weight: Quantised, offsets: Tensor, output_dtype: torch.dtype = torch.bfloat16
) -> Tensor:
    """`linear_forward` of every expert over its own rows.

    Args:
        rows: [R, K] in 1×128 tiles, in order of experts.
        weight: [E, N, K] in 128×128 blocks.
        offsets: [E] int32, where each expert's rows end; an expert may have none.
        output_dtype: of the result.

    Returns:
        [R, N].
    """
    product = grouped_product(dequantise(rows, (1, BLOCK)), dequantise(weight, (BLOCK, BLOCK)).mT, offsets)
    return product.to(output_dtype)


def grouped_grad_input(
    gradient: Quantised, weight: Quantised, offsets: Tensor, output_dtype: torch.dtype = torch.bfloat16
) -> Tensor:
    """`linear_grad_input` of every expert: [R, N] in 1×128 tiles by [E, N, K] in 128×128 blocks gives [R, K]."""
    product = grouped_product(dequantise(gradient, (1, BLOCK)), dequantise(weight, (BLOCK, BLOCK)), offsets)
    return product.to(output_dtype)


def grouped_grad_weight(
    gradient: Quantised, rows: Quantised, offsets: Tensor, output_dtype: torch.dtype = torch.float32
) -> Tensor:
    """`linear_grad_weight` of every expert, zero for one without rows.

    `gradient` [R, N] and `rows` [R, K] come from `quantise_grouped_128x1`; the result is [E, N, K].
    """
    gradient_RN = dequantise_grouped_128x1(gradient, offsets)  # noqa: N806
    return grouped_product(gradient_RN.mT, dequantise_grouped_128x1(rows, offsets), offsets).to(output_dtype)


# An operation of its own: torch.compile takes F.grouped_mm for BF16 only.
@torch.library.custom_op("melisma::grouped_product", mutates_args=())
def grouped_product(left: Tensor, right: Tensor, offsets: Tensor) -> Tensor:
    """F.grouped_mm for sides of any length.

    Args:
        left: [R, A] with `right` [E, A, B], which gives [R, B]; or [A, R] with `right` [R, B], which gives [E, A, B].
        right: see `left`.
        offsets: [E] int32, where each expert's rows end.
    """
    n_rows, n_columns = left.shape[0], right.shape[-1]
    if right.ndim == 3:
        product = F.grouped_mm(_aligned(left), _aligned(_aligned(right).mT).mT, offs=offsets)
        return product[:, :n_columns].contiguous()
    product = F.grouped_mm(_aligned(left.mT).mT, _aligned(right), offs=offsets)
    return product[:, :n_rows, :n_columns].contiguous()


@grouped_product.register_fake
def _(left: Tensor, right: Tensor, offsets: Tensor) -> Tensor:
    experts = [] if right.ndim == 3 else [offsets.shape[0]]
    return left.new_empty(*experts, left.shape[0], right.shape[-1])


def _quantise(x: Tensor, rows: int, columns: int) -> Quantised:
    """Round `x` [..., M, K] in blocks of `rows` by `columns`, partial ones at the edges."""
    n_rows, n_columns = x.shape[-2:]
    padded = F.pad(x.float(), (0, -n_columns % columns, 0, -n_rows % rows))
    blocks = padded.unflatten(-1, (-1, columns)).unflatten(-3, (-1, rows))
    factor = _factor(blocks.abs().amax(dim=(-3, -1), keepdim=True))
    values = _round(blocks * factor).flatten(-4, -3).flatten(-2, -1)[..., :n_rows, :n_columns]
    return Quantised(values.contiguous(), factor.reciprocal().squeeze((-3, -1)))


def _factor(amax: Tensor) -> Tensor:
    """What brings a block's largest magnitude to E4M3's largest number. Not a number, or infinite: stays visible."""
    # A number over a tensor is computed as reciprocal times number, rounded twice: divide tensors.
    return torch.full_like(amax, E4M3_MAX) / amax.clamp_min(SMALLEST_AMAX)


def _round(scaled: Tensor) -> Tensor:
    """To the nearest E4M3 number; the product with a rounded factor may lie just beyond the largest."""
    return scaled.clamp(-E4M3_MAX, E4M3_MAX).to(E4M3)


def _aligned(x: Tensor) -> Tensor:
    """`x` with its last dimension padded by zeros to the 16 bytes that grouped_mm asks of strides."""
    missing = -x.shape[-1] % (16 // x.element_size())
    return F.pad(x, (0, missing)) if missing else x


def _tile_of_row(offsets: Tensor, n_rows: int) -> Tensor:
    """Which tile of `quantise_grouped_128x1` each row belongs to [R]."""
    ends = offsets.long()
    counts = ends.diff(prepend=ends.new_zeros(1))
    tiles_per_expert = (counts + BLOCK - 1) // BLOCK
    first_tile = tiles_per_expert.cumsum(0) - tiles_per_expert
    row = torch.arange(n_rows, device=offsets.device)
    expert = torch.bucketize(row, ends, right=True).clamp_max(offsets.shape[0] - 1)
    return first_tile[expert] + (row - (ends - counts)[expert]) // BLOCK
