"""The rotation of all heads' queries, in one kernel."""

# Kernels are typed by what they are compiled for, and their compile-time constants are capitals.
# mypy: allow-untyped-defs
# ruff: noqa: N803

import triton
import triton.language as tl
from torch import Tensor

from lightning_modules.model.kernels.dependent_launch import dependent_launch, launch_dependents, wait_for_previous


def rotate_queries(query: Tensor, cos: Tensor, sin: Tensor, interleaves: bool) -> Tensor:
    """The last P numbers of every head's `query` [N, H, nope + P], contiguous, rotated as `rotate` does: [N, H, P].

    `cos` and `sin` [N, P / 2] are FP32.
    """
    (n_rows, n_heads, width), n_pairs = query.shape, cos.shape[1]
    rope = query.new_empty(n_rows, n_heads, 2 * n_pairs)
    _rotate_queries[(n_rows,)](
        query,
        cos,
        sin,
        rope,
        HEADS=n_heads,
        HEADS_BLOCK=triton.next_power_of_2(n_heads),
        WIDTH=width,
        PAIRS=n_pairs,
        PAIRS_BLOCK=triton.next_power_of_2(n_pairs),
        INTERLEAVED=interleaves,
        **dependent_launch(query.device),
    )
    return rope


@triton.jit
def _rotate_queries(
    query,  # [N, H, nope + P]
    cos,  # FP32 [N, P / 2]
    sin,
    rope,  # [N, H, P]
    HEADS: tl.constexpr,
    HEADS_BLOCK: tl.constexpr,
    WIDTH: tl.constexpr,
    PAIRS: tl.constexpr,
    PAIRS_BLOCK: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    launch_dependents(DEPENDENT)
    wait_for_previous(DEPENDENT)
    row = tl.program_id(0)
    head = tl.arange(0, HEADS_BLOCK)[:, None]
    pair = tl.arange(0, PAIRS_BLOCK)[None, :]
    inside = (head < HEADS) & (pair < PAIRS)
    first = 2 * pair if INTERLEAVED else pair
    second = first + (1 if INTERLEAVED else PAIRS)
    source = query + (row * HEADS + head) * WIDTH + WIDTH - 2 * PAIRS
    x = tl.load(source + first, mask=inside, other=0.0).to(tl.float32)
    y = tl.load(source + second, mask=inside, other=0.0).to(tl.float32)
    c = tl.load(cos + row * PAIRS + pair, mask=pair < PAIRS, other=0.0)
    s = tl.load(sin + row * PAIRS + pair, mask=pair < PAIRS, other=0.0)
    target = rope + (row * HEADS + head) * (2 * PAIRS)
    tl.store(target + first, (x * c - y * s).to(rope.dtype.element_ty), mask=inside)
    tl.store(target + second, (y * c + x * s).to(rope.dtype.element_ty), mask=inside)
