"""The way of tokens to their experts and back.

Suffixes: N tokens, K chosen experts a token, E experts, D hidden; R rows, one for every choice of a token.
"""

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor


class Dispatcher(Protocol):
    """Brings tokens to wherever their experts live, and back. No token is dropped.

    The three methods are called in order: `plan` starts what can run beside other work, such as telling other ranks how
    many rows they will receive; what it returns is for `dispatch` alone, as `way_back` is for `combine`.
    """

    def plan(self, indices: Tensor) -> Any:
        """Begin to send every token to the experts `indices` [N, K]."""
        ...

    def dispatch(self, tokens: Tensor, gates: Tensor, plan: Any) -> tuple[Tensor, Tensor, Any]:
        """Copy `tokens` [N, D] to their experts, each of which will count by its share of `gates` [N, K].

        Returns:
            The rows [R, D] that came to the experts living here, in order of experts; how many each of these received;
            and the way back.
        """
        ...

    def combine(self, rows: Tensor, way_back: Any) -> Tensor:
        """Bring the experts' rows [R, D] back, and sum them into tokens [N, D], weighted by the gates."""
        ...


def count_rows(indices: Tensor, n_experts: int, counted: Tensor | None = None) -> Tensor:
    """How many of `indices` (any shape) name each expert [E]; unlike `bincount`, without waiting for a GPU.

    `counted`, of the same shape, tells which of them count; None: all.
    """
    flat = indices.flatten()
    ones = torch.ones_like(flat) if counted is None else counted.flatten().to(flat.dtype)
    return torch.zeros(n_experts, dtype=torch.int64, device=flat.device).scatter_add_(0, flat, ones)


class LocalWay(NamedTuple):
    """How rows were sorted: the choices in order of experts [N·K], and the gates [N, K]."""

    order: Tensor
    gates: Tensor


class LocalDispatcher:
    """All experts live here: rows are sorted by expert, and summed back into their tokens."""

    def __init__(self, n_experts: int) -> None:
        self.n_experts = n_experts

    def plan(self, indices: Tensor) -> Tensor:
        """Nothing has to be known before: the plan is the choice itself [N, K]."""
        return indices

    def dispatch(self, tokens: Tensor, gates: Tensor, plan: Tensor) -> tuple[Tensor, Tensor, LocalWay]:
        """Copy `tokens` [N, D] to the experts that `plan` [N, K] chose for them.

        Returns:
            Rows [N·K, D] in order of experts, rows per expert [E], and the way back for `combine`.
        """
        order = plan.flatten().argsort(stable=True)
        return tokens[order // plan.shape[1]], count_rows(plan, self.n_experts), LocalWay(order, gates)

    def combine(self, rows: Tensor, way_back: LocalWay) -> Tensor:
        """Sum the experts' rows [N·K, D] into tokens [N, D], weighted by the gates."""
        gates = way_back.gates
        unsorted = torch.empty_like(rows).index_copy(0, way_back.order, rows)
        weighted = unsorted.unflatten(0, tuple(gates.shape)) * gates.to(rows.dtype).unsqueeze(-1)
        return weighted.sum(dim=1)
