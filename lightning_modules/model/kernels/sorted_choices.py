"""The choices of few tokens sorted by expert, in one launch.

Suffixes as in `experts.py`; N tokens.
"""

# Kernels are typed by what they are compiled for, and their compile-time constants are capitals.
# mypy: allow-untyped-defs
# ruff: noqa: N803, N806

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from lightning_modules.model.kernels.dependent_launch import dependent_launch, launch_dependents, wait_for_previous

# Choices that one program sorts, and that it compares with at once.
SORTED = 32
COMPARED = 256


class Order(NamedTuple):
    """The choices of all tokens, sorted by expert.

    Attributes:
        choices: int32 [N · K] which choice each row is: that of token choices[r] // K.
        places: int32 [N, K] which row each choice is.
        ends: int32 [E] where each expert's rows end.
    """

    choices: Tensor
    places: Tensor
    ends: Tensor


def sort_choices(indices: Tensor, n_experts: int) -> Order:
    """Sort the experts `indices`, int32 [N, K], that tokens chose; equal ones stay in order."""
    order = Order(indices.new_empty(indices.numel()), torch.empty_like(indices), indices.new_empty(n_experts))
    programs = triton.cdiv(indices.numel(), SORTED) + triton.cdiv(n_experts, SORTED)
    _sort_choices[(programs,)](
        indices,
        *order,
        indices.numel(),
        n_experts,
        SORTED=SORTED,
        COMPARED=COMPARED,
        **dependent_launch(indices.device),
    )
    return order


@triton.jit
def _sort_choices(
    indices,  # int32 [N · K]
    choices,  # int32 [N · K]
    places,  # int32 [N · K]
    ends,  # int32 [E]
    n_choices,
    n_experts,
    SORTED: tl.constexpr,
    COMPARED: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """A choice's place is the number of those that come before it; an expert's end, of those up to it."""
    launch_dependents(DEPENDENT)
    wait_for_previous(DEPENDENT)
    n_blocks = tl.cdiv(n_choices, SORTED)
    is_choice = tl.program_id(0) < n_blocks
    number = tl.where(is_choice, tl.program_id(0), tl.program_id(0) - n_blocks) * SORTED + tl.arange(0, SORTED)
    inside = number < tl.where(is_choice, n_choices, n_experts)
    expert = tl.load(indices + number, mask=inside & is_choice, other=0)
    expert = tl.where(is_choice, expert, number)
    before = tl.where(is_choice, number, n_choices)
    place = tl.zeros([SORTED], tl.int32)
    for start in range(0, n_choices, COMPARED):
        other = start + tl.arange(0, COMPARED)
        others = tl.load(indices + other, mask=other < n_choices, other=2**30)
        precedes = (others[None, :] == expert[:, None]) & (other[None, :] < before[:, None])
        place += tl.sum(((others[None, :] < expert[:, None]) | precedes).to(tl.int32), axis=1)
    if is_choice:
        tl.store(places + number, place, mask=inside)
        tl.store(choices + place, number, mask=inside)
    else:
        tl.store(ends + number, place, mask=inside)
