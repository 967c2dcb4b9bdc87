"""Rows picked from the tokens of all ranks: those whose experts live here.

Suffixes: N tokens of all ranks, K chosen experts a token, L experts here, D hidden; R rows.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_modules.model.dispatch import count_rows

# Rows are counted in pages: their number, and so what memory is asked for, changes less from layer to layer.
PAGE = 128


class Choices(NamedTuple):
    """The choices of experts that live here, sorted by expert, before the host knows their number.

    Attributes:
        order: [N·K] which choice each row is; those of other ranks' experts come last.
        places: [N, K] which row carries each choice: the inverse.
        rows_per_expert: [L].
    """

    order: Tensor
    places: Tensor
    rows_per_expert: Tensor

    @classmethod
    def among(cls, indices: Tensor, first_expert: int, n_experts: int) -> "Choices":
        """Those of `indices` [N, K] that name the `n_experts` experts from `first_expert` on."""
        experts = indices - first_expert
        experts = torch.where((experts >= 0) & (experts < n_experts), experts, n_experts)
        # Radix sort passes over every byte of its keys.
        order = experts.flatten().to(torch.int16).argsort(stable=True)
        places = torch.empty_like(order).scatter_(0, order, torch.arange(order.numel(), device=order.device))
        return cls(order, places.view_as(indices), count_rows(experts, n_experts + 1)[:-1])


def in_pages(n_rows: int) -> int:
    """The next whole number of pages above so many rows: at least one, so that products always have rows."""
    return (n_rows // PAGE + 1) * PAGE


class Selection(NamedTuple):
    """The same, cut to whole pages, or to a bound.

    Attributes:
        order: [R] which choice each row is: row r carries token order[r] // K; -1: none, its row is zero.
        places: [N, K] which row carries each choice; -1: its expert lives elsewhere, or it is beyond the bound.
        rows_per_expert: [L]; the last expert's include the rows of zeros, but not those up to a bound.
    """

    order: Tensor
    places: Tensor
    rows_per_expert: Tensor

    @classmethod
    def of(cls, choices: Choices, n_rows: int) -> "Selection":
        """The first `n_rows` of `choices`, which is how many there are."""
        n_paged = in_pages(n_rows)
        order = F.pad(choices.order, (0, PAGE))[:n_paged]
        order = torch.where(torch.arange(n_paged, device=order.device) < n_rows, order, -1)
        places = torch.where(choices.places < n_rows, choices.places, -1)
        counts = choices.rows_per_expert
        return cls(order, places, torch.cat((counts[:-1], counts[-1:] + (n_paged - n_rows))))

    @classmethod
    def within(cls, choices: Choices, room: int) -> "Selection":
        """The first of `choices` for which there is room, however many there are: the host need not know it.

        Rows behind the last expert's are zeros here, and anything in a product.
        """
        ends = choices.rows_per_expert.cumsum(0).clamp_max(room)
        order = torch.where(torch.arange(room, device=ends.device) < ends[-1], choices.order[:room], -1)
        places = torch.where(choices.places < ends[-1], choices.places, -1)
        return cls(order, places, ends.diff(prepend=ends.new_zeros(1)))

    def rows_of(self, tokens: Tensor) -> Tensor:
        """A copy of `tokens` [N, D] for every choice here, in order [R, D]."""
        return _Spread.apply(tokens, self.order, self.places)

    def gates_of(self, gates: Tensor) -> Tensor:
        """The gates [N, K] in order [R]; zero for rows of zeros."""
        return _SpreadGates.apply(gates, self.order, self.places)

    def sum_of(self, rows: Tensor) -> Tensor:
        """The rows [R, D] summed into their tokens [N, D]; zero for tokens without any."""
        return _Sum.apply(rows, self.order, self.places)


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tokens: Tensor, order: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(order, places)
        return _spread(tokens, order, places.shape[1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        _, places = ctx.saved_tensors
        return _sum(gradients[0], places), None, None


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, order: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(order, places)
        return _sum(rows, places)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        order, places = ctx.saved_tensors
        return _spread(gradients[0], order, places.shape[1]), None, None


class _SpreadGates(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gates: Tensor, order: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        return F.pad(gates.flatten(), (0, 1))[order]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (places,) = ctx.saved_tensors
        return F.pad(gradients[0], (0, 1))[places], None, None


def _spread(tokens: Tensor, order: Tensor, n_chosen: int) -> Tensor:
    if tokens.is_cuda:
        from lightning_modules.model.kernels.permutation import spread_rows

        return spread_rows(tokens, order, n_chosen)
    # -1 is the row of zeros at the end.
    return F.pad(tokens, (0, 0, 0, 1))[order // n_chosen]


def _sum(rows: Tensor, places: Tensor) -> Tensor:
    if rows.is_cuda:
        from lightning_modules.model.kernels.permutation import sum_rows

        return sum_rows(rows, places)
    return F.pad(rows, (0, 0, 0, 1))[places].sum(dim=1)
