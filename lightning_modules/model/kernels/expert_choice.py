"""The choice of experts in one kernel: best of each group, best groups, best experts of these."""

# Kernels are typed by what they are compiled for, and their compile-time constants are capitals.
# mypy: allow-untyped-defs
# ruff: noqa: N803

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op, wrap_triton

ROWS = 1


@triton_op("melisma::choose_experts", mutates_args=())
def choose_experts(scores: Tensor, n_groups: int, n_groups_kept: int, n_chosen: int) -> Tensor:
    """The best experts [R, K] of the best groups, as `Router._choose` finds them, in no particular order.

    Args:
        scores: FP32 [R, E] on a GPU.
        n_groups: G, into which the experts fall in order; 1: there are no groups.
        n_groups_kept: groups to choose from, by the sum of their two best scores.
        n_chosen: K.
    """
    n_rows, n_experts = scores.shape
    indices = torch.empty(n_rows, n_chosen, dtype=torch.int64, device=scores.device)
    if n_rows == 0:
        return indices
    width = n_experts // n_groups
    wrap_triton(_choose)[(triton.cdiv(n_rows, ROWS),)](
        scores.contiguous(),
        indices,
        n_rows,
        n_groups,
        width,
        KEPT=n_groups_kept if n_groups > 1 else 0,
        CHOSEN=n_chosen,
        ROWS=ROWS,
        GROUPS=triton.next_power_of_2(n_groups),
        WIDTH=triton.next_power_of_2(width),
        num_warps=1,
    )
    return indices


@triton.jit
def _choose(
    scores,
    indices,
    n_rows,
    n_groups,
    width,
    KEPT: tl.constexpr,
    CHOSEN: tl.constexpr,
    ROWS: tl.constexpr,
    GROUPS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Fill `indices` for ROWS rows of `scores`, each seen as GROUPS by WIDTH; KEPT 0 keeps all groups."""
    lowest = float("-inf")
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    group = tl.arange(0, GROUPS)
    place = tl.arange(0, WIDTH)
    number = group[:, None] * width + place[None, :]
    is_expert = (group[:, None] < n_groups) & (place[None, :] < width)
    inside = is_expert[None] & (row[:, None, None] < n_rows)
    at = scores + row[:, None, None].to(tl.int64) * (n_groups * width) + number[None]
    score = tl.load(at, mask=inside, other=lowest)
    if KEPT > 0:
        best, at_best = tl.max(score, axis=2, return_indices=True)
        others = tl.where(place[None, None, :] == at_best[:, :, None], lowest, score)
        second = tl.max(others, axis=2)
        # A group of one expert counts by that one alone.
        of_group = tl.where(group[None, :] < n_groups, best + tl.where(second == lowest, 0.0, second), lowest)
        kept = tl.zeros([ROWS, GROUPS], dtype=tl.int32)
        for _ in tl.static_range(KEPT):
            chosen = tl.argmax(of_group, axis=1)
            is_chosen = group[None, :] == chosen[:, None]
            kept = tl.where(is_chosen, 1, kept)
            of_group = tl.where(is_chosen, lowest, of_group)
        score = tl.where(kept[:, :, None] == 1, score, lowest)
    flat = tl.reshape(score, [ROWS, GROUPS * WIDTH])
    slot = tl.arange(0, GROUPS * WIDTH)
    for k in tl.static_range(CHOSEN):
        chosen = tl.argmax(flat, axis=1)
        expert = chosen // WIDTH * width + chosen % WIDTH
        tl.store(indices + row.to(tl.int64) * CHOSEN + k, expert.to(tl.int64), mask=row < n_rows)
        flat = tl.where(slot[None, :] == chosen[:, None], lowest, flat)
