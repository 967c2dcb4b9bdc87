"""Whether experts specialise: which tokens they are given, by codebook, by speaker, and together with whom.

Shapes: N tokens, K chosen experts a token, E experts, Q codebooks, D documents, S speakers, G groups.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_modules.model.router import Routing

N_PERMUTATIONS = 200
# All pairs of 64 experts; of more, the strongest.
MAX_PAIRS = 2016


class RoutingCounts:
    """The choices of one layer's router, counted over documents.

    Attributes:
        by_codebook: choices of each expert for tokens of each codebook [Q, E].
        by_document: the same for tokens of each document [D, E].
        together: tokens that chose both experts [E, E]; the diagonal holds those that chose the one.
    """

    def __init__(self, n_codebooks: int, n_documents: int, n_experts: int) -> None:
        self.by_codebook = torch.zeros(n_codebooks, n_experts, dtype=torch.float64)
        self.by_document = torch.zeros(n_documents, n_experts, dtype=torch.float64)
        self.together = torch.zeros(n_experts, n_experts, dtype=torch.float64)

    @property
    def load(self) -> Tensor:
        """How many tokens each expert received [E]."""
        return self.by_codebook.sum(dim=0)

    def add(self, routing: Routing, codebook: Tensor, document: Tensor, is_scored: Tensor) -> None:
        """Count a batch.

        Args:
            routing: of N tokens, on whichever device.
            codebook: which codebook each token's target belongs to [N].
            document: which document each is of [N].
            is_scored: which of them count [N]: padding, and what an earlier window has counted, does not.
        """
        chosen = routing.indices.cpu()[is_scored]
        # FP32 holds whole numbers up to 2^24 exactly: more than a batch has tokens.
        taken = F.one_hot(chosen, self.together.shape[0]).sum(dim=1).float()
        self.together += (taken.T @ taken).double()
        taken = taken.double()
        self.by_codebook.index_add_(0, codebook[is_scored], taken)
        self.by_document.index_add_(0, document[is_scored], taken)

    def by_speaker(self, speakers: Sequence[str]) -> tuple[list[str], Tensor]:
        """The speakers' names in order, and choices of each expert for each one's tokens [S, E].

        Args:
            speakers: of every document.
        """
        names, index = np.unique(np.asarray(speakers), return_inverse=True)
        counts = torch.zeros(len(names), self.by_document.shape[1], dtype=torch.float64)
        return names.tolist(), counts.index_add_(0, torch.from_numpy(index), self.by_document)

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


class Association(NamedTuple):
    """How much an expert tells of the group a token belongs to.

    Attributes:
        share: of the group's entropy that one choice tells, 0 to 1 (the uncertainty coefficient).
        chance: what it stays below in 95 % of draws where groups have nothing to do with experts.
    """

    share: float
    chance: float


def association(counts: Tensor) -> float:
    """Mutual information of group and expert by the group's entropy, from counts [G, E]; 0 where there is one group."""
    joint = counts / counts.sum()
    groups, experts = joint.sum(dim=1), joint.sum(dim=0)
    entropy = torch.special.entr(groups).sum()
    information = entropy + torch.special.entr(experts).sum() - torch.special.entr(joint).sum()
    return float((information / entropy).clamp(0, 1)) if entropy > 0 else 0.0


def speaker_association(counts: RoutingCounts, speakers: Sequence[str], seed: int = 0) -> Association:
    """How much an expert tells of the speaker, and how much it would if documents had been dealt to speakers at random.

    Tokens of one document are alike in more than their speaker: dealing whole documents keeps that in what chance does.
    """
    _, found = counts.by_speaker(speakers)
    rng = np.random.default_rng(seed)
    dealt = [association(counts.by_speaker(rng.permutation(speakers).tolist())[1]) for _ in range(N_PERMUTATIONS)]
    return Association(association(found), float(np.quantile(dealt, 0.95)))


def preference_rows(layer: int, kind: str, groups: Sequence[str], counts: Tensor) -> list[dict[str, Any]]:
    """Rows for a table: how much oftener each group's tokens go to an expert than all tokens do.

    Args:
        layer: the router's.
        kind: what the groups are: `codebook` or `speaker`.
        groups: their names.
        counts: choices of each expert for tokens of each group [G, E].
    """
    share = counts / counts.sum(dim=1, keepdim=True)
    preference = share / (counts.sum(dim=0) / counts.sum())
    return [
        {"layer": layer, "kind": kind, "group": group, "expert": expert, "preference": value}
        for group, row in zip(groups, preference.tolist(), strict=True)
        for expert, value in enumerate(row)
    ]


def pair_rows(layer: int, counts: RoutingCounts, n_at_most: int = MAX_PAIRS) -> list[dict[str, Any]]:
    """Rows for a table: how much oftener than by chance two experts go together, the strongest first."""
    n_experts = len(counts.together)
    first, second = torch.triu_indices(n_experts, n_experts, offset=1)
    lift = counts.lift()[first, second].nan_to_num(0.0)
    order = lift.argsort(descending=True, stable=True)[:n_at_most]
    return [
        {"layer": layer, "expert": int(first[pair]), "other": int(second[pair]), "lift": float(lift[pair])}
        for pair in order
    ]
