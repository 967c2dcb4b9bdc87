"""Queries and keys of all heads with their rotary parts, each in one pass over memory.

B batch, T tokens, H heads, N dimensions without position, P rotary ones, a power of two.
"""

# Kernels are typed by what they are compiled for, and their compile-time constants are capitals.
# mypy: allow-untyped-defs
# ruff: noqa: N803

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op, wrap_triton

from lightning_modules.model.rotary import rotate


def rotate_queries(query: Tensor, cos: Tensor, sin: Tensor, interleaves: bool) -> Tensor:
    """The last P numbers of every head's query [B, T, H, N + P] rotated; `cos` and `sin` are FP32 [B, T, P/2]."""
    return _RotateQueries.apply(query, cos, sin, interleaves)


def join_keys(key: Tensor, shared: Tensor, cos: Tensor, sin: Tensor, interleaves: bool) -> Tensor:
    """Every head's key [B, T, H, N], and behind it the one [B, T, P] that all share, rotated: [B, T, H, N + P]."""
    return _JoinKeys.apply(key, shared, cos, sin, interleaves)


class _RotateQueries(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, cos: Tensor, sin: Tensor, interleaves: bool) -> Tensor:
        ctx.save_for_backward(cos, sin)
        ctx.interleaves = interleaves
        return _turned(query, cos, sin, interleaves, turns_back=False)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        cos, sin = ctx.saved_tensors
        return _turned(gradients[0], cos, sin, ctx.interleaves, turns_back=True), None, None, None


class _JoinKeys(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, key: Tensor, shared: Tensor, cos: Tensor, sin: Tensor, interleaves: bool) -> Tensor:
        ctx.save_for_backward(cos, sin)
        ctx.interleaves = interleaves
        return join_turned(key, shared[:, :, None], cos, sin, interleaves, False)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        cos, sin = ctx.saved_tensors
        of_key, of_shared = gradients[0].split((gradients[0].shape[-1] - 2 * cos.shape[-1], 2 * cos.shape[-1]), dim=-1)
        turned_back = rotate(of_shared.sum(dim=2, dtype=torch.float32), cos, -sin, ctx.interleaves)
        return of_key, turned_back.type_as(of_shared), None, None, None


def _turned(heads: Tensor, cos: Tensor, sin: Tensor, interleaves: bool, turns_back: bool) -> Tensor:
    plain, tail = heads.split((heads.shape[-1] - 2 * cos.shape[-1], 2 * cos.shape[-1]), dim=-1)
    return join_turned(plain, tail, cos, sin, interleaves, turns_back)


@triton_op("melisma::join_turned", mutates_args=())
def join_turned(plain: Tensor, tail: Tensor, cos: Tensor, sin: Tensor, interleaves: bool, turns_back: bool) -> Tensor:
    """Heads [B, T, H, N], and behind them their tails [B, T, H or 1, P], rotated: [B, T, H, N + P], contiguous.

    Args:
        plain: numbers of a head next to each other, as those of `tail`.
        tail: of each head, or of all.
        cos: of the angles, FP32 [B, T, P/2].
        sin: of the angles.
        interleaves: see `rotate`.
        turns_back: by the angles' negatives.
    """
    (n_rows, n_tokens, n_heads, width), n_rotary = plain.shape, tail.shape[-1]
    cos, sin = (angles.expand(n_rows, -1, -1).contiguous() for angles in (cos, sin))
    joined = plain.new_empty(n_rows, n_tokens, n_heads, width + n_rotary)
    wrap_triton(_join_turned)[(n_tokens, n_rows)](
        plain,
        tail,
        cos,
        sin,
        joined,
        *plain.stride()[:3],
        *tail.stride()[:2],
        tail.stride(2) if tail.shape[2] > 1 else 0,
        HEADS=n_heads,
        HEADS_BLOCK=triton.next_power_of_2(n_heads),
        WIDTH=width,
        WIDTH_BLOCK=triton.next_power_of_2(width),
        ROTARY=n_rotary,
        INTERLEAVED=interleaves,
        TURNS_BACK=turns_back,
    )
    return joined


@triton.jit
def _join_turned(
    plain,
    tail,
    cos,  # [B, T, P/2]
    sin,
    joined,  # [B, T, H, N + P]
    plain_row,  # strides
    plain_token,
    plain_head,
    tail_row,
    tail_token,
    tail_head,
    HEADS: tl.constexpr,
    HEADS_BLOCK: tl.constexpr,
    WIDTH: tl.constexpr,
    WIDTH_BLOCK: tl.constexpr,
    ROTARY: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    TURNS_BACK: tl.constexpr,
):
    """All heads of one token."""
    token, row = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    number = row * tl.num_programs(0) + token
    head = tl.arange(0, HEADS_BLOCK)[:, None]
    is_head = head < HEADS
    targets = joined + (number * HEADS + head) * (WIDTH + ROTARY)
    column = tl.arange(0, WIDTH_BLOCK)[None, :]
    inside = is_head & (column < WIDTH)
    numbers = tl.load(plain + row * plain_row + token * plain_token + head * plain_head + column, mask=inside)
    tl.store(targets + column, numbers, mask=inside)
    column = tl.arange(0, ROTARY)[None, :]
    numbers = tl.load(tail + row * tail_row + token * tail_token + head * tail_head + column, mask=is_head, other=0.0)
    pair = number * (ROTARY // 2) + tl.arange(0, ROTARY // 2)[None, :]
    c, s = tl.load(cos + pair), tl.load(sin + pair)
    s = -s if TURNS_BACK else s
    if INTERLEAVED:
        pairs = tl.reshape(numbers.to(tl.float32), [HEADS_BLOCK, ROTARY // 2, 2])
    else:
        pairs = tl.permute(tl.reshape(numbers.to(tl.float32), [HEADS_BLOCK, 2, ROTARY // 2]), (0, 2, 1))
    first, second = tl.split(pairs)
    turned = tl.join(first * c - second * s, second * c + first * s)
    turned = turned if INTERLEAVED else tl.permute(turned, (0, 2, 1))
    turned = tl.reshape(turned, [HEADS_BLOCK, ROTARY]).to(joined.dtype.element_ty)
    tl.store(targets + WIDTH + column, turned, mask=is_head)
