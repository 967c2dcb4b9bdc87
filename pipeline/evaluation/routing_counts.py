"""The choices that routers make for documents, counted.

Shapes: N tokens, K chosen experts a token, E experts, Q codebooks, D documents, S speakers.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_modules.model.router import Routing


class RoutingCounts:
    """The choices of one layer's router, counted over documents.

    Attributes:
        by_codebook: choices of each expert for tokens of each codebook [Q, E].
        by_document: the same for tokens of each document [D, E].
        together: tokens that chose both experts [E, E]; the diagonal holds those that chose the one.
    """

    def __init__(self, n_codebooks: int, n_documents: int, n_experts: int) -> None:
        self.by_codebook = torch.zeros(n_codebooks, n_experts, dtype=torch.float64)
        # FP32 holds whole numbers up to 2^24 exactly, more than a document has tokens.
        self.by_document = torch.zeros(n_documents, n_experts)
        self.together = torch.zeros(n_experts, n_experts, dtype=torch.float64)

    @property
    def load(self) -> Tensor:
        """How many tokens each expert received [E]."""
        return self.by_codebook.sum(dim=0)

    def tables(self) -> tuple[Tensor, ...]:
        """All that is counted: those of several ranks add up."""
        return self.by_codebook, self.by_document, self.together

    def merge(self, other: "RoutingCounts") -> None:
        """Count what `other` has counted of the same documents too."""
        for own, theirs in zip(self.tables(), other.tables(), strict=True):
            own += theirs

    def add(self, routing: Routing, codebook: Tensor, document: Tensor, is_scored: Tensor) -> None:
        """Count a batch.

        Args:
            routing: of N tokens, on whichever device.
            codebook: which codebook each token's target belongs to [N].
            document: which document each is of [N].
            is_scored: which of them count [N]: padding, and what an earlier window has counted, does not.
        """
        chosen = routing.indices.cpu()[is_scored]
        taken = F.one_hot(chosen, len(self.together)).sum(dim=1).float()
        self.together += (taken.T @ taken).double()
        self.by_codebook.index_add_(0, codebook[is_scored], taken.double())
        self.by_document.index_add_(0, document[is_scored], taken)

    def by_speaker(self, speakers: Sequence[str]) -> tuple[list[str], Tensor]:
        """The speakers' names in order, and choices of each expert for each one's tokens [S, E].

        Args:
            speakers: of every document.
        """
        names, index = np.unique(np.asarray(speakers), return_inverse=True)
        counts = torch.zeros(len(names), self.by_document.shape[1], dtype=torch.float64)
        return names.tolist(), counts.index_add_(0, torch.from_numpy(index), self.by_document.double())

    def lift(self) -> Tensor:
        """How much more often than by chance two experts are chosen for one token [E, E]; NaN on the diagonal.

        Chance is that of choices independent but for their number: p_i p_j, scaled so that the mean over pairs,
        weighted by chance, is 1.
        """
        n_experts = self.together.shape[0]
        apart = ~torch.eye(n_experts, dtype=torch.bool)
        chance = torch.outer(self.together.diagonal(), self.together.diagonal())
        expected = chance * (self.together[apart].sum() / chance[apart].sum())
        return torch.where(apart, self.together / expected, torch.nan)
