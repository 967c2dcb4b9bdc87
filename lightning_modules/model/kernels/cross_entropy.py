"""Cross-entropy over the vocabulary and its gradient, in one kernel and in place."""

# Kernels are typed by what they are compiled for, and their compile-time constants are capitals.
# mypy: allow-untyped-defs
# ruff: noqa: N803

import triton
import triton.language as tl
from torch import Tensor

# Scores that one program reads at once, at most.
WIDEST = 8192


def replace_by_gradients(scores: Tensor, targets: Tensor, losses: Tensor) -> None:
    """Fill `losses` with the cross-entropy of every row, and put its gradients in the place of the row's scores.

    Args:
        scores: [R, V], contiguous, on a GPU.
        targets: [R] which score of each row ought to be the highest; negative: none, and nothing is lost.
        losses: FP32 [R].
    """
    n_rows, n_columns = scores.shape
    block = min(triton.next_power_of_2(n_columns), WIDEST)
    _replace_by_gradients[(n_rows,)](scores, targets, losses, COLUMNS=n_columns, BLOCK=block, num_warps=8)


@triton.jit
def _replace_by_gradients(scores, targets, losses, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    target = tl.load(targets + row)
    is_target = target >= 0
    scores += row * COLUMNS
    # Before the reductions, which all threads wait for: one of them will have overwritten it later.
    at_target = tl.load(scores + tl.maximum(target, 0)).to(tl.float32)
    column = tl.arange(0, BLOCK)
    largest = float("-inf")
    total = 0.0
    for start in range(0, COLUMNS, BLOCK):
        inside = start + column < COLUMNS
        score = tl.load(scores + start + column, mask=inside, other=float("-inf")).to(tl.float32)
        larger = tl.maximum(largest, tl.max(score, axis=0))
        total = total * tl.exp(largest - larger) + tl.sum(tl.exp(score - larger), axis=0)
        largest = larger
    normaliser = largest + tl.log(total)
    tl.store(losses + row, tl.where(is_target, normaliser - at_target, 0.0))
    for start in range(0, COLUMNS, BLOCK):
        inside = start + column < COLUMNS
        score = tl.load(scores + start + column, mask=inside).to(tl.float32)
        gradient = tl.exp(score - normaliser) - tl.where(start + column == target, 1.0, 0.0)
        gradient = tl.where(is_target, gradient, 0.0)
        tl.store(scores + start + column, gradient.to(scores.dtype.element_ty), mask=inside)
