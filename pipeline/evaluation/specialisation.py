"""Whether experts specialise: which tokens they are given, by codebook, by speaker, and together with whom.

Shapes: G groups of tokens, E experts.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline.evaluation.routing_counts import RoutingCounts

N_PERMUTATIONS = 200
# All pairs of 64 experts; of more, the strongest.
MAX_PAIRS = 2016


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
