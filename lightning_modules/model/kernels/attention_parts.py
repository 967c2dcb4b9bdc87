"""Attention over two parts of all keys, each by itself, joined by the sums of their exponentials."""

# Kernels are typed by what they are compiled for, and their compile-time constants are capitals.
# mypy: allow-untyped-defs
# ruff: noqa: N803

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor


class Part(NamedTuple):
    """What queries attend to in a part of all keys.

    Attributes:
        context: [B, H, T, V], whose memory is in the order B, T, H, V.
        log_sum: FP32 [B, H, T, 1] logarithms of the sums of the scores' exponentials.
    """

    context: Tensor
    log_sum: Tensor


def fits(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether cuDNN knows such heads (see `attend_held`), and is where they are."""
    parameters = torch.backends.cuda.SDPAParams(query, key, value, None, 0.0, False, False)
    return torch.backends.cuda.can_use_cudnn_attention(parameters)


def join(first: Part, second: Part) -> Tensor:
    """What queries attend to in both parts [B, T, H, V], contiguous."""
    n_rows, n_heads, n_new, width = first.context.shape
    joined = first.context.new_empty(n_rows, n_new, n_heads, width)
    _join[(n_new, n_rows)](
        first.context.transpose(1, 2),
        second.context.transpose(1, 2),
        first.log_sum,
        second.log_sum,
        joined,
        *first.log_sum.stride()[:3],
        HEADS=n_heads,
        HEADS_BLOCK=triton.next_power_of_2(n_heads),
        WIDTH=width,
        WIDTH_BLOCK=triton.next_power_of_2(width),
    )
    return joined


def attend_held(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """What the last T of S tokens attend to: all before them, and causally themselves.

    Args:
        query: [B, H, T, D].
        key: [B, H, S, D].
        value: [B, H, S, V].
        scale: of the scores.

    Returns:
        [B, T, H, V], contiguous.
    """
    n_held = key.shape[2] - query.shape[2]
    attend = torch.ops.aten._scaled_dot_product_cudnn_attention
    parts = []
    for of_part, is_causal in ((slice(0, n_held), False), (slice(n_held, None), True)):
        context, log_sum, *_ = attend(
            query, key[:, :, of_part], value[:, :, of_part], None, True, 0.0, is_causal, False, scale=scale
        )
        parts.append(Part(context, log_sum))
    return join(*parts)


@triton.jit
def _join(
    first,  # [B, T, H, V]
    second,
    first_sum,  # FP32 [B, H, T, 1]
    second_sum,
    joined,  # [B, T, H, V]
    sum_row,  # strides
    sum_head,
    sum_token,
    HEADS: tl.constexpr,
    HEADS_BLOCK: tl.constexpr,
    WIDTH: tl.constexpr,
    WIDTH_BLOCK: tl.constexpr,
):
    token, row = tl.program_id(0), tl.program_id(1).to(tl.int64)
    head = tl.arange(0, HEADS_BLOCK)
    column = tl.arange(0, WIDTH_BLOCK)
    of_sum = row * sum_row + head * sum_head + token * sum_token
    x = tl.load(first_sum + of_sum, mask=head < HEADS, other=0.0)
    y = tl.load(second_sum + of_sum, mask=head < HEADS, other=0.0)
    share = tl.sigmoid(x - y)[:, None]
    at = ((row * tl.num_programs(0) + token) * HEADS + head[:, None]) * WIDTH + column[None, :]
    inside = (head < HEADS)[:, None] & (column < WIDTH)[None, :]
    of_first = tl.load(first + at, mask=inside, other=0.0).to(tl.float32)
    of_second = tl.load(second + at, mask=inside, other=0.0).to(tl.float32)
    both = of_second + (of_first - of_second) * share
    tl.store(joined + at, both.to(joined.dtype.element_ty), mask=inside)
