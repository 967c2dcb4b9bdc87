"""The way of tokens to their experts and back."""

import torch
from torch import Tensor


class LocalDispatcher:
    """All experts live here: rows are sorted by expert, and summed back into their tokens.

    R rows, one for each of a token's K chosen experts; N tokens.
    """

    def __init__(self, n_experts: int) -> None:
        self.n_experts = n_experts

    def dispatch(self, tokens: Tensor, indices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Copy `tokens` [N, D] to the experts `indices` [N, K] chose for them.

        Returns:
            Rows [N·K, D] in order of experts, rows per expert [E], and the way back for `combine`.
        """
        order = indices.flatten().argsort(stable=True)
        rows_per_expert = torch.bincount(indices.flatten(), minlength=self.n_experts)
        return tokens[order // indices.shape[1]], rows_per_expert, order

    def combine(self, rows: Tensor, gates: Tensor, order: Tensor) -> Tensor:
        """Sum the experts' rows [N·K, D] into tokens [N, D], weighted by `gates` [N, K]."""
        n_tokens, n_chosen = gates.shape
        unsorted = torch.empty_like(rows).index_copy(0, order, rows)
        weighted = unsorted.unflatten(0, (n_tokens, n_chosen)) * gates.to(rows.dtype).unsqueeze(-1)
        return weighted.sum(dim=1)
