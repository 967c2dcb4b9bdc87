"""The way of tokens to their experts and back.

Suffixes: N tokens, K chosen experts a token, E experts, D hidden; R rows, one for every choice of a token.
"""

from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_modules.model import by_hand


class Dispatched(NamedTuple):
    """Rows that came to the experts living here.

    Attributes:
        rows: [R, D] in order of experts.
        gates: [R] what each row's output counts, FP32.
        rows_per_expert: how many rows each expert here received.
        way_back: for `combine`.
    """

    rows: Tensor
    gates: Tensor
    rows_per_expert: Tensor
    way_back: Any


class Choice(NamedTuple):
    """Tokens and where they go: what a dispatcher that starts nothing beforehand takes for its plan.

    Attributes:
        tokens: [N, D].
        gates: [N, K] what each of their experts counts, FP32.
        indices: [N, K] the experts.
    """

    tokens: Tensor
    gates: Tensor
    indices: Tensor


class Gathered(NamedTuple):
    """Tokens as they come whole to where experts live.

    Attributes:
        choice: of the experts here, counted from zero; one below zero lives elsewhere.
        room: for how many rows there has to be room.
    """

    choice: Choice
    room: int


class Dispatcher(Protocol):
    """Brings tokens to wherever their experts live, and back. No token is dropped.

    The three methods are called in order: `plan` starts what can run beside other work, such as an exchange with other
    ranks; what it returns is for `dispatch` alone, as `way_back` is for `combine`.

    Gates travel with the rows: an expert weighs what enters its last projection, which is narrower than what leaves it.
    """

    def plan(self, tokens: Tensor, gates: Tensor, indices: Tensor) -> Any:
        """Begin to send `tokens` [N, D] to their experts `indices` [N, K], each of which counts `gates` [N, K]."""
        ...

    def dispatch(self, plan: Any) -> Dispatched:
        """The rows that came to the experts here."""
        ...

    def combine(self, rows: Tensor, way_back: Any) -> Tensor:
        """Bring the experts' weighted rows [R, D] back, and sum them into tokens [N, D]."""
        ...


def count_rows(indices: Tensor, n_experts: int, counted: Tensor | None = None) -> Tensor:
    """How many of `indices` (any shape) name each expert [E]; unlike `bincount`, without waiting for a GPU.

    `counted`, of the same shape, tells which of them count; None: all.
    """
    flat = indices.flatten()
    ones = torch.ones_like(flat) if counted is None else counted.flatten().to(flat.dtype)
    return torch.zeros(n_experts, dtype=torch.int64, device=flat.device).scatter_add_(0, flat, ones)


class Permutation(NamedTuple):
    """How the choices of tokens, N · K in all, are sorted.

    Attributes:
        order: [N·K] which choice each row is: row r carries token order[r] // K.
        places: [N, K] which row carries each choice: the inverse.
    """

    order: Tensor
    places: Tensor

    @classmethod
    def sorting(cls, indices: Tensor) -> "Permutation":
        """The stable order of the experts `indices` [N, K] that tokens chose."""
        order = indices.flatten().argsort(stable=True)
        numbers = torch.arange(order.numel(), device=order.device)
        return cls(order, torch.empty_like(order).scatter_(0, order, numbers).view_as(indices))

    def rows_of(self, tokens: Tensor) -> Tensor:
        """A copy of `tokens` [N, D] for every choice, in order [N·K, D]."""
        return _Spread.apply(tokens, *self)

    def gates_of(self, gates: Tensor) -> Tensor:
        """The gates [N, K] in order [N·K]."""
        choices = self.order.numel()
        rows = _Spread.apply(gates.reshape(choices, 1), self.order, self.places.view(choices, 1))
        return rows.flatten()

    def sum_of(self, rows: Tensor) -> Tensor:
        """The rows [N·K, D] summed into their tokens [N, D]."""
        return _Gathered.apply(rows, *self)


class _Spread(torch.autograd.Function):
    """Rows gathered from tokens. By itself torch would add gradients up by scattering them into zeros."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, order: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(order, places)
        return _spread(tokens, order, places.shape[1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        _, places = ctx.saved_tensors
        return _sum(gradients[0], places), None, None


class _Gathered(torch.autograd.Function):
    """Tokens summed from rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, order: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(order, places)
        return _sum(rows, places)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        order, places = ctx.saved_tensors
        return _spread(gradients[0], order, places.shape[1]), None, None


def sum_by_token(rows: Tensor, places: Tensor) -> Tensor:
    """Each token as the sum of the rows `places` [N, K] of [R, D]; on a GPU one below zero adds nothing."""
    return _sum(rows, places)


def _spread(tokens: Tensor, order: Tensor, n_chosen: int) -> Tensor:
    if tokens.is_cuda:
        from lightning_modules.model.kernels.permutation import spread_rows

        return spread_rows(tokens, order, n_chosen)
    return tokens.index_select(0, order // n_chosen)


def _sum(rows: Tensor, places: Tensor) -> Tensor:
    if rows.is_cuda:
        from lightning_modules.model.kernels.permutation import sum_rows

        return sum_rows(rows, places)
    if by_hand.applies_to(rows):
        # One pass, without a copy of the rows beside their sums.
        return F.embedding_bag(places, rows, mode="sum")
    return rows[places].sum(dim=1)


class TokenDispatcher:
    """A dispatcher that can also bring tokens whole, to experts that pick their rows themselves, and sum these up."""

    def gather(self, plan: Any) -> Gathered | None:
        """The tokens; None where only rows can be brought."""
        raise NotImplementedError

    def add_up(self, sums: Tensor) -> Tensor:
        """Tokens [N, D] from the sums of the experts here for every gathered token."""
        raise NotImplementedError


class LocalDispatcher(TokenDispatcher):
    """All experts live here: rows are sorted by expert, and summed back into their tokens."""

    def __init__(self, n_experts: int) -> None:
        self.n_experts = n_experts

    def plan(self, tokens: Tensor, gates: Tensor, indices: Tensor) -> Choice:
        """Nothing has to be known before."""
        return Choice(tokens, gates, indices)

    def dispatch(self, plan: Choice) -> Dispatched:
        """Copy the tokens for every choice."""
        permutation = Permutation.sorting(plan.indices)
        rows, row_gates = permutation.rows_of(plan.tokens), permutation.gates_of(plan.gates)
        return Dispatched(rows, row_gates, count_rows(plan.indices, self.n_experts), permutation)

    def combine(self, rows: Tensor, way_back: Permutation) -> Tensor:
        """Sum the experts' rows [N·K, D] into tokens [N, D]."""
        return way_back.sum_of(rows)

    def gather(self, plan: Choice) -> Gathered:
        """They are here."""
        return Gathered(plan, plan.indices.numel())

    def add_up(self, sums: Tensor) -> Tensor:
        """All experts have added to them."""
        return sums
