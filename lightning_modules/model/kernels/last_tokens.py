"""What a step feeds, in one kernel: each row's last token, and how many tokens stand before it in the cache."""

# Kernels are typed by what they are compiled for, and their compile-time constants are capitals.
# mypy: allow-untyped-defs
# ruff: noqa: N803

import triton
import triton.language as tl
from torch import Tensor


def feed_last_tokens(tokens: Tensor, lengths: Tensor, offsets: Tensor, held: Tensor) -> Tensor:
    """`RowState.last_tokens` [B, 1]; `RowState.held` is written to `held` [B].

    Kernels of the step read `held` before they wait (see `dependent_launch`): this one lets none begin before it has
    ended.

    Args:
        tokens: [B, places] of all rows.
        lengths: [B] how many of them count.
        offsets: [B] how many of these the cache does not hold.
        held: what is written.
    """
    n_rows = tokens.shape[0]
    last = tokens.new_empty(n_rows, 1)
    _feed[(n_rows,)](tokens, lengths, offsets, last, held, tokens.stride(0), num_warps=1)
    return last


@triton.jit
def _feed(tokens, lengths, offsets, last, held, row_stride):
    row = tl.program_id(0)
    length = tl.load(lengths + row)
    tl.store(last + row, tl.load(tokens + row.to(tl.int64) * row_stride + length - 1))
    tl.store(held + row, length - tl.load(offsets + row))
