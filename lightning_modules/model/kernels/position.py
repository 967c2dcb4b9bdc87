"""What of many heads' queries and keys carries position, written into place: each number is read and written once."""

# Kernels are typed by what they are compiled for, and their compile-time constants are capitals.
# mypy: allow-untyped-defs
# ruff: noqa: N803

import triton
import triton.language as tl
from torch import Tensor

from lightning_modules.model.kernels.dependent_launch import dependent_launch, launch_dependents, wait_for_previous


def rotate_in_place(query: Tensor, cos: Tensor, sin: Tensor, interleaves: bool) -> None:
    """Rotate the last P numbers of every head's `query` [N, H, nope + P], contiguous, as `rotate` does.

    `cos` and `sin` [N, P / 2] are FP32.
    """
    _rotate_into(query, query, cos, sin, interleaves)


def rotate_queries(query: Tensor, cos: Tensor, sin: Tensor, interleaves: bool) -> Tensor:
    """As `rotate_in_place`, into a tensor of their own: [N, H, P]."""
    rope = query.new_empty(*query.shape[:2], 2 * cos.shape[1])
    _rotate_into(rope, query, cos, sin, interleaves)
    return rope


def _rotate_into(target: Tensor, query: Tensor, cos: Tensor, sin: Tensor, interleaves: bool) -> None:
    """Let what heads of `target` end with be what those of `query` do, rotated."""
    (n_rows, n_heads, width), n_pairs = query.shape, cos.shape[1]
    _rotate[(n_rows,)](
        query,
        cos,
        sin,
        target,
        HEADS=n_heads,
        HEADS_BLOCK=triton.next_power_of_2(n_heads),
        WIDTH=width,
        TARGET_WIDTH=target.shape[2],
        PAIRS=n_pairs,
        PAIRS_BLOCK=triton.next_power_of_2(n_pairs),
        INTERLEAVED=interleaves,
        **dependent_launch(query.device),
    )


def share_key(rope_key: Tensor, key: Tensor) -> None:
    """Put the rotated `rope_key` [M, P] behind every head's `key` [H, M, nope + P], both contiguous."""
    (n_heads, n_rows, width), rope_dim = key.shape, rope_key.shape[1]
    _share[(n_rows,)](
        rope_key,
        key,
        n_rows,
        HEADS=n_heads,
        HEADS_BLOCK=triton.next_power_of_2(n_heads),
        WIDTH=width,
        ROPE=rope_dim,
        ROPE_BLOCK=triton.next_power_of_2(rope_dim),
    )


@triton.jit
def _rotate(
    query,  # [N, H, nope + P]
    cos,  # FP32 [N, P / 2]
    sin,
    target,  # [N, H, TARGET_WIDTH]
    HEADS: tl.constexpr,
    HEADS_BLOCK: tl.constexpr,
    WIDTH: tl.constexpr,
    TARGET_WIDTH: tl.constexpr,
    PAIRS: tl.constexpr,
    PAIRS_BLOCK: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    launch_dependents(DEPENDENT)
    wait_for_previous(DEPENDENT)
    row = tl.program_id(0).to(tl.int64)
    head = tl.arange(0, HEADS_BLOCK)
    pair = tl.arange(0, PAIRS_BLOCK)
    c = tl.load(cos + row * PAIRS + pair, mask=pair < PAIRS, other=0.0)[None, :]
    s = tl.load(sin + row * PAIRS + pair, mask=pair < PAIRS, other=0.0)[None, :]
    head_number = row * HEADS + head[:, None]
    source = query + head_number * WIDTH + WIDTH - 2 * PAIRS
    target += head_number * TARGET_WIDTH + TARGET_WIDTH - 2 * PAIRS
    is_head = (head < HEADS)[:, None]
    if INTERLEAVED:
        # Both numbers of a pair are loaded as neighbours, and taken apart in registers.
        column = tl.arange(0, 2 * PAIRS_BLOCK)[None, :]
        inside = is_head & (column < 2 * PAIRS)
        numbers = tl.load(source + column, mask=inside, other=0.0).to(tl.float32)
        x, y = tl.split(tl.reshape(numbers, [HEADS_BLOCK, PAIRS_BLOCK, 2]))
        turned = tl.reshape(tl.join(x * c - y * s, y * c + x * s), [HEADS_BLOCK, 2 * PAIRS_BLOCK])
        tl.store(target + column, turned.to(target.dtype.element_ty), mask=inside)
    else:
        inside = is_head & (pair < PAIRS)[None, :]
        first = source + pair[None, :]
        x = tl.load(first, mask=inside, other=0.0).to(tl.float32)
        y = tl.load(first + PAIRS, mask=inside, other=0.0).to(tl.float32)
        tl.store(target + pair[None, :], (x * c - y * s).to(target.dtype.element_ty), mask=inside)
        tl.store(target + pair[None, :] + PAIRS, (y * c + x * s).to(target.dtype.element_ty), mask=inside)


@triton.jit
def _share(
    rope_key,  # [M, P]
    key,  # [H, M, nope + P]
    n_rows,
    HEADS: tl.constexpr,
    HEADS_BLOCK: tl.constexpr,
    WIDTH: tl.constexpr,
    ROPE: tl.constexpr,
    ROPE_BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    head = tl.arange(0, HEADS_BLOCK)[:, None].to(tl.int64)
    column = tl.arange(0, ROPE_BLOCK)
    numbers = tl.load(rope_key + row * ROPE + column, mask=column < ROPE, other=0.0)
    target = key + (head * n_rows + row) * WIDTH + WIDTH - ROPE + column[None, :]
    tl.store(target, tl.broadcast_to(numbers[None, :], target.shape), mask=(head < HEADS) & (column < ROPE)[None, :])
