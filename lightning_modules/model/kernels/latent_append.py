"""What one layer's cache is to hold of new tokens: normalised, rotated, quantised and stored by one kernel."""

# Kernels are typed by what they are compiled for, and their compile-time constants are capitals.
# mypy: allow-untyped-defs
# ruff: noqa: N803, N806

import triton
import triton.language as tl
from torch import Tensor

from lightning_modules.model.cache import FP8_MAXIMUM, SMALLEST_MAXIMUM, TILE_WIDTH


def append_latent(
    projected: Tensor,
    norm_weight: Tensor,
    cos: Tensor,
    sin: Tensor,
    latent: Tensor,
    rope_key: Tensor,
    lengths: Tensor,
    eps: float,
    interleaves: bool = True,
    latent_scale: Tensor | None = None,
) -> None:
    """Store what row b's T new tokens are remembered by, at `lengths[b]` and on; what has no room there is lost.

    Args:
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
    n_rows, n_new, _ = projected.shape
    rank, rope_dim = latent.shape[-1], rope_key.shape[-1]
    _append[(n_rows, n_new)](
        projected,
        norm_weight,
        cos,
        sin,
        latent,
        rope_key,
        latent_scale,
        lengths,
        latent.shape[1],
        *projected.stride()[:2],
        *latent.stride()[:2],
        *rope_key.stride()[:2],
        *((0, 0) if latent_scale is None else latent_scale.stride()[:2]),
        eps,
        RANK=rank,
        ROPE=rope_dim,
        SCALED=TILE_WIDTH,
        SCALED_TILES=triton.next_power_of_2(triton.cdiv(rank, TILE_WIDTH)),
        PAIRS=triton.next_power_of_2(max(rope_dim // 2, 1)),
        INTERLEAVES=interleaves,
        LARGEST=FP8_MAXIMUM,
        SMALLEST=SMALLEST_MAXIMUM,
        num_warps=4 if rank > 128 else 1,
    )


@triton.jit
def _append(
    projected,  # [B, T, R + P]
    norm_weight,  # [R]
    cos,  # [B, T, P / 2]
    sin,
    latent,  # [B, S, R]
    rope_key,  # [B, S, P]
    latent_scale,  # [B, S, tiles], or None
    lengths,  # [B]
    capacity,
    projected_row,  # strides
    projected_token,
    latent_row,
    latent_token,
    rope_row,
    rope_token,
    scale_row,
    scale_token,
    eps,
    RANK: tl.constexpr,
    ROPE: tl.constexpr,
    SCALED: tl.constexpr,
    SCALED_TILES: tl.constexpr,
    PAIRS: tl.constexpr,
    INTERLEAVES: tl.constexpr,
    LARGEST: tl.constexpr,
    SMALLEST: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    token = tl.program_id(1)
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
    angle = (row * tl.num_programs(1) + token) * (ROPE // 2) + pair
    c = tl.load(cos + angle, mask=is_pair, other=0.0)
    s = tl.load(sin + angle, mask=is_pair, other=0.0)
    key = rope_key + row * rope_row + place * rope_token
    tl.store(key + first, (x * c - y * s).to(rope_key.dtype.element_ty), mask=is_pair & fits)
    tl.store(key + second, (y * c + x * s).to(rope_key.dtype.element_ty), mask=is_pair & fits)
