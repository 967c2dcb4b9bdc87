"""Do the weights look as training leaves them, layer by layer, or as they were drawn?"""

import math
import re
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pipeline.checkpoints.names import ALWAYS_FP32
from pipeline.checkpoints.tensor_summary import described
from pipeline.conversion.check import FAIL, PASS, SKIPPED, WARN, Check, listed
from pipeline.conversion.survey import SMALLEST_SIDE, TensorFacts

NAME = "weight statistics"
# Above a random matrix's chance, which shrinks with its smaller side n as n^(-2/3) (Tracy and Widom, 1996).
LEAST_MARGIN, CHANCE = 0.04, 0.9
# Standard deviations of one kind of tensor differ between layers by less than this factor, either way.
LARGEST_SPREAD = 8.0
FEWEST_TO_COMPARE = 3
TRAINED_SHARE = 0.5
# What has not been loaded stands out: in every layer, while of the other matrices nearly all are trained. A short
# training leaves matrices behind too, but here and there.
CLEAR_SHARE, FEWEST_OF_A_KIND = 0.9, 2


class Looks(NamedTuple):
    """Which matrices look as if they had been drawn at random, among those that can tell."""

    random: list[str]
    judged: list[str]

    @property
    def is_trained(self) -> bool:
        """Whether most matrices have learnt something: then what looks random was not loaded."""
        return len(self.judged) - len(self.random) > TRAINED_SHARE * len(self.judged)


def look(facts: Mapping[str, TensorFacts]) -> Looks:
    """Tell matrices with a spike beyond a random matrix's edge from those without."""
    judged = [name for name, fact in facts.items() if not math.isnan(fact.edge_ratio)]
    return Looks([name for name in judged if looks_random(facts[name])], judged)


def looks_random(fact: TensorFacts) -> bool:
    """Whether a matrix has no singular value beyond what chance would give it."""
    margin = max(LEAST_MARGIN, CHANCE * min(fact.shape) ** (-2 / 3))
    return fact.edge_ratio <= 1 + margin


def check_statistics(facts: Mapping[str, TensorFacts], missing: Sequence[str]) -> Check:
    """Find matrices that training has not touched, tensors that are all one number, and outliers among layers.

    A kind of projection that looks random in every layer, while nearly all others are trained, was not loaded: that
    fails. Single ones are a warning, as an expert may never have been chosen; so is a model that looks random as a
    whole, which has hardly been trained. `missing` weights are known to be random: `check_completeness` tells of them.
    """
    known = {name: fact for name, fact in facts.items() if name not in missing}
    looks = look(known)
    empty = [name for name, fact in known.items() if fact.is_constant and not _may_be_constant(name, fact)]
    untouched = unlearnt(looks)
    untouched += [name for name, fact in known.items() if fact.is_constant and "norm" in name]
    odd = outliers(known)
    ratios = [known[name].edge_ratio for name in looks.judged]
    numbers = {
        "matrices": len(looks.judged),
        "random_looking": len(looks.random),
        "median_edge_ratio": statistics.median(ratios) if ratios else math.nan,
        "smallest_edge_ratio": min(ratios, default=math.nan),
        "constant": len(empty),
        "outliers": len(odd),
    }
    if empty:
        return Check(NAME, FAIL, f"every number is the same in {listed(empty)}", numbers)
    if not looks.judged:
        return Check(NAME, SKIPPED, f"no matrix has sides of {SMALLEST_SIDE} or more", numbers)
    if not looks.is_trained:
        share = f"{len(looks.random):,} of {len(looks.judged):,}"
        return Check(
            NAME, WARN, f"{share} matrices look as they were drawn: the model has hardly been trained", numbers
        )
    if untouched:
        return Check(NAME, FAIL, f"{described(untouched, 'untrained')}, while other weights are trained", numbers)
    if looks.random:
        few = f"{len(looks.random):,} of {len(looks.judged):,} matrices look as they were drawn"
        return Check(NAME, WARN, f"{few}: {described(looks.random, 'untrained')}", numbers)
    if odd:
        return Check(NAME, WARN, f"{listed(odd)}: far from the same tensor of other layers", numbers)
    sentence = f"all {len(looks.judged):,} matrices are trained, {numbers['median_edge_ratio']:.2f} times a random edge"
    return Check(NAME, PASS, sentence, numbers)


def unlearnt(looks: Looks) -> list[str]:
    """Matrices of kinds that look random in every layer, where that stands out from all other matrices."""
    random = set(looks.random)
    of_kinds = [names for names in _by_kind(looks.judged).values() if random.issuperset(names)]
    untouched = [name for names in of_kinds if len(names) >= FEWEST_OF_A_KIND for name in names]
    n_others = len(looks.judged) - len(untouched)
    n_others_random = len(looks.random) - len(untouched)
    return untouched if n_others - n_others_random >= CLEAR_SHARE * n_others else []


def outliers(facts: Mapping[str, TensorFacts]) -> list[str]:
    """Tensors whose numbers spread far more or less than the same kind of tensor does in other layers."""
    odd = []
    for names in _by_kind([name for name, fact in facts.items() if len(fact.shape) == 2 and fact.std > 0]).values():
        if len(names) >= FEWEST_TO_COMPARE:
            typical = statistics.median(facts[name].std for name in names)
            odd += [name for name in names if not 1 / LARGEST_SPREAD <= facts[name].std / typical <= LARGEST_SPREAD]
    return odd


def _by_kind(names: Sequence[str]) -> dict[str, list[str]]:
    kinds: dict[str, list[str]] = {}
    for name in names:
        kinds.setdefault(_kind(name), []).append(name)
    return kinds


def _kind(name: str) -> str:
    """A tensor's name without the numbers of its layer and expert."""
    return re.sub(r"\.\d+\.", ".N.", name)


def _may_be_constant(name: str, fact: TensorFacts) -> bool:
    """Gains of norms begin at one, and routers' statistics at one value for all experts."""
    return ("norm" in name and fact.lowest > 0) or name.endswith(ALWAYS_FP32)
