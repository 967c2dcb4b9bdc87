"""What one layer's cache is to hold of new tokens: normalised, rotated, quantised and stored by one kernel."""

# Kernels are typed by what they are compiled for, and their compile-time constants are capitals.
# mypy: allow-untyped-defs
# ruff: noqa: N803, N806

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from lightning_modules.model.cache import FP8_MAXIMUM, SMALLEST_MAXIMUM, TILE_WIDTH


class Remembered(NamedTuple):
    """What new tokens are remembered by, before it is made fit for a cache, and where that is.

    Attributes:
        projected: [B, T, R + P] what `kv_a_proj_with_mqa` yields, numbers of a token side by side.
        norm_weight: [R] of the latents' RMS norm.
        cos: FP32 [B, T, P / 2] of the rotary angles, contiguous.
        sin: FP32 [B, T, P / 2].
        latent: [B, S, R] the cache of a layer; in FP8 with `latent_scale`.
        rope_key: [B, S, P] its rotated keys.
        lengths: [B] tokens that each row holds, on the GPU.
        eps: of the norm.
        interleaves: what a rotary pair is (see `rotate`).
        latent_scale: FP32 [B, S, ⌈R / 128⌉]; None: the latents are not in FP8.
    """

    projected: Tensor
    norm_weight: Tensor
    cos: Tensor
    sin: Tensor
    latent: Tensor
    rope_key: Tensor
    lengths: Tensor
    eps: float
    interleaves: bool = True
    latent_scale: Tensor | None = None

    def tensors(self) -> tuple[Tensor | None, ...]:
        """As `append_token` takes them."""
        return (self.projected, self.norm_weight, self.cos, self.sin, *self._cache(), self.lengths)

    def places(self) -> tuple[int, ...]:
        """How far rows, and their tokens, lie apart in what was projected and in the cache; the capacity, and T."""
        of_tensors = ((0, 0) if tensor is None else tensor.stride()[:2] for tensor in (self.projected, *self._cache()))
        strides = (stride for strides in of_tensors for stride in strides)
        return (*strides, self.latent.shape[1], self.projected.shape[1])

    def shape(self) -> tuple[int | float, ...]:
        """What is known when kernels are compiled: R, P, whether pairs are adjacent, and how FP8 is scaled."""
        return (
            self.latent.shape[-1],
            self.rope_key.shape[-1],
            self.interleaves,
            TILE_WIDTH,
            FP8_MAXIMUM,
            SMALLEST_MAXIMUM,
        )

    def _cache(self) -> tuple[Tensor, Tensor, Tensor | None]:
        return self.latent, self.rope_key, self.latent_scale


def append_latent(remembered: Remembered) -> None:
    """Store what row b's T new tokens are remembered by, at `lengths[b]` and on; what has no room there is lost."""
    n_rows, n_new, width = remembered.projected.shape
    _append[(n_rows * n_new,)](
        remembered.tensors(),
        remembered.places(),
        remembered.eps,
        SHAPE=remembered.shape(),
        num_warps=4 if width > 128 else 1,
    )


@triton.jit
def _append(remembered, places, eps, SHAPE: tl.constexpr):
    append_token(tl.program_id(0), remembered, places, eps, SHAPE)


@triton.jit
def append_token(number, remembered, places, eps, SHAPE: tl.constexpr):
    """Store what the new token of this number, of all rows, is remembered by (see `Remembered`)."""
    projected, norm_weight, cos, sin, latent, rope_key, latent_scale, lengths = remembered
    projected_row, projected_token, latent_row, latent_token = places[0], places[1], places[2], places[3]
    rope_row, rope_token, scale_row, scale_token = places[4], places[5], places[6], places[7]
    capacity, n_new = places[8], places[9]
    RANK: tl.constexpr = SHAPE[0]
    ROPE: tl.constexpr = SHAPE[1]
    INTERLEAVES: tl.constexpr = SHAPE[2]
    SCALED: tl.constexpr = SHAPE[3]
    LARGEST: tl.constexpr = SHAPE[4]
    SMALLEST: tl.constexpr = SHAPE[5]
    SCALED_TILES: tl.constexpr = triton.next_power_of_2((RANK + SCALED - 1) // SCALED)
    PAIRS: tl.constexpr = triton.next_power_of_2(max(ROPE // 2, 1))
    row = (number // n_new).to(tl.int64)
    token = number % n_new
    place = tl.load(lengths + row).to(tl.int64) + token
    fits = place < capacity
    source = projected + row * projected_row + token * projected_token
    tile = tl.arange(0, SCALED_TILES)
    dim = tile[:, None] * SCALED + tl.arange(0, SCALED)[None, :]
    is_latent = dim < RANK
    values = tl.load(source + dim, mask=is_latent, other=0.0).to(tl.float32)
    mean_square = tl.sum(tl.sum(values * values, axis=1), axis=0) / RANK
    values *= tl.rsqrt(mean_square + eps)
    values *= tl.load(norm_weight + dim, mask=is_latent, other=0.0).to(tl.float32)
    target = latent + row * latent_row + place * latent_token + dim
    if latent_scale is None:
        tl.store(target, values.to(latent.dtype.element_ty), mask=is_latent & fits)
    else:
        # As `LatentCache.append` quantises what the norm has rounded.
        values = values.to(projected.dtype.element_ty).to(tl.float32)
        factor = tl.div_rn(tl.maximum(tl.max(tl.abs(values), axis=1), SMALLEST), LARGEST)
        scaled = tl.div_rn(values, tl.broadcast_to(factor[:, None], [SCALED_TILES, SCALED]))
        tl.store(target, scaled.to(latent.dtype.element_ty), mask=is_latent & fits)
        of_scale = latent_scale + row * scale_row + place * scale_token + tile
        tl.store(of_scale, factor, mask=(tile * SCALED < RANK) & fits)
    pair = tl.arange(0, PAIRS)
    is_pair = pair < ROPE // 2
    first = 2 * pair if INTERLEAVES else pair
    second = first + (1 if INTERLEAVES else ROPE // 2)
    x = tl.load(source + RANK + first, mask=is_pair, other=0.0).to(tl.float32)
    y = tl.load(source + RANK + second, mask=is_pair, other=0.0).to(tl.float32)
    angle = number * (ROPE // 2) + pair
    c = tl.load(cos + angle, mask=is_pair, other=0.0)
    s = tl.load(sin + angle, mask=is_pair, other=0.0)
    key = rope_key + row * rope_row + place * rope_token
    tl.store(key + first, (x * c - y * s).to(rope_key.dtype.element_ty), mask=is_pair & fits)
    tl.store(key + second, (y * c + x * s).to(rope_key.dtype.element_ty), mask=is_pair & fits)
