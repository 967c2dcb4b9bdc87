"""What a step begins with, in one kernel: the embeddings of its tokens, and the angles of their places."""

# Kernels are typed by what they are compiled for, and their compile-time constants are capitals.
# mypy: allow-untyped-defs
# ruff: noqa: N803

import torch
import triton
import triton.language as tl
from torch import Tensor

from lightning_modules.model.kernels.dependent_launch import dependent_launch, launch_dependents, wait_for_previous


def step_inputs(
    tokens: Tensor, embedding: Tensor, lengths: Tensor, frequencies: Tensor, rotary_scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings [B · T, D] of `tokens` [B, T], and cosines and sines FP32 [B · T, P / 2] (see `rotary_cos_sin`).

    Args:
        tokens: what follows.
        embedding: [V, D].
        lengths: [B] where each row's tokens begin.
        frequencies: FP32 [P / 2] radians a position.
        rotary_scale: of cosines and sines.
    """
    (n_rows, n_new), n_pairs = tokens.shape, frequencies.shape[0]
    hidden = embedding.new_empty(n_rows * n_new, embedding.shape[1])
    cos, sin = torch.empty(2, n_rows * n_new, n_pairs, dtype=torch.float32, device=tokens.device)
    _step_inputs[(n_rows * n_new,)](
        tokens.contiguous(),
        embedding,
        lengths,
        frequencies,
        hidden,
        cos,
        sin,
        rotary_scale,
        NEW=n_new,
        WIDTH=embedding.shape[1],
        WIDTH_BLOCK=triton.next_power_of_2(embedding.shape[1]),
        PAIRS=n_pairs,
        PAIRS_BLOCK=triton.next_power_of_2(n_pairs),
        **dependent_launch(tokens.device),
    )
    return hidden, cos, sin


@triton.jit
def _step_inputs(
    tokens,  # [B, T]
    embedding,  # [V, D]
    lengths,  # [B]
    frequencies,  # FP32 [P / 2]
    hidden,  # [B · T, D]
    cos,  # FP32 [B · T, P / 2]
    sin,
    rotary_scale,
    NEW: tl.constexpr,
    WIDTH: tl.constexpr,
    WIDTH_BLOCK: tl.constexpr,
    PAIRS: tl.constexpr,
    PAIRS_BLOCK: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    launch_dependents(DEPENDENT)
    wait_for_previous(DEPENDENT)
    row = tl.program_id(0)
    token = tl.load(tokens + row).to(tl.int64)
    column = tl.arange(0, WIDTH_BLOCK)
    numbers = tl.load(embedding + token * WIDTH + column, mask=column < WIDTH, other=0.0)
    tl.store(hidden + row * WIDTH + column, numbers, mask=column < WIDTH)
    pair = tl.arange(0, PAIRS_BLOCK)
    position = (tl.load(lengths + row // NEW) + row % NEW).to(tl.float32)
    angle = position * tl.load(frequencies + pair, mask=pair < PAIRS, other=0.0)
    tl.store(cos + row * PAIRS + pair, tl.cos(angle) * rotary_scale, mask=pair < PAIRS)
    tl.store(sin + row * PAIRS + pair, tl.sin(angle) * rotary_scale, mask=pair < PAIRS)
