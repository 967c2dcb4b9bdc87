"""How often each unit counts in each resample."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

# Fewer clusters than this say too little of how clusters differ.
FEWEST_CLUSTERS = 5


@dataclass(frozen=True)
class Design:
    """How units came about, which is how they are drawn again.

    Attributes:
        n_units: how many there are.
        strata: of each unit: there would be as many of each stratum in any other sample, as of the speakers whom the
            model has learnt from. None: all are of one.
        clusters: of each unit: what comes and goes together, within one stratum, as the clips of one prompt, or all
            utterances of a speaker whom the model has never heard. None, or fewer than `FEWEST_CLUSTERS`: units are
            independent.
    """

    n_units: int
    strata: Sequence[Hashable] | None = None
    clusters: Sequence[Hashable] | None = None

    def take(self, units: Sequence[int]) -> "Design":
        """The design of these units alone."""

        def of_these(labels: Sequence[Hashable] | None) -> Sequence[Hashable] | None:
            return None if labels is None else [labels[unit] for unit in units]

        return Design(len(units), of_these(self.strata), of_these(self.clusters))

    @property
    def degrees_of_freedom(self) -> int:
        """Of the variance between what is drawn."""
        _, strata = self._drawn()
        return len(strata) - (int(strata.max()) + 1 if len(strata) else 0)

    def resample(self, n_resamples: int, seed: int) -> np.ndarray:
        """Weights of units [B, N]: how often each is drawn, with replacement, again and again.

        Of the n things of a stratum n − 1 are drawn and count for n / (n − 1): drawing n would make few vary too
        little (Rao and Wu, 1988).
        """
        members, strata = self._drawn()
        generator = np.random.default_rng(seed)
        drawn = np.ones((n_resamples, len(strata)))
        for inside in _positions(strata):
            n = len(inside)
            if n > 1:
                drawn[:, inside] = generator.multinomial(n - 1, np.full(n, 1 / n), size=n_resamples) * (n / (n - 1))
        return drawn[:, members]

    def leave_one_out(self) -> tuple[np.ndarray, np.ndarray]:
        """Weights of units [D, N] without one of the things that are drawn, for which the others of its stratum stand
        in; and the share (n − 1) / n of each such thing, by which the jackknife counts it [D]."""
        members, strata = self._drawn()
        weights, shares = np.ones((len(strata), len(strata))), np.zeros(len(strata))
        for inside in _positions(strata):
            n = len(inside)
            if n > 1:
                weights[np.ix_(inside, inside)] = n / (n - 1)
                shares[inside] = (n - 1) / n
        np.fill_diagonal(weights, 0.0)
        return weights[:, members], shares

    def _drawn(self) -> tuple[np.ndarray, np.ndarray]:
        """Which of the things that are drawn each unit belongs to [N], and the stratum of each such thing [D]."""
        members = np.arange(self.n_units)
        if self.clusters is not None and len(set(self.clusters)) >= FEWEST_CLUSTERS:
            members = numbered(self.clusters)
        strata = np.zeros(self.n_units, dtype=int) if self.strata is None else numbered(self.strata)
        _, first = np.unique(members, return_index=True)
        return members, _without_single(strata[first])


def _positions(strata: np.ndarray) -> list[np.ndarray]:
    """Where each stratum's things stand."""
    return [np.flatnonzero(strata == stratum) for stratum in range(int(strata.max(initial=-1)) + 1)]


def numbered(labels: Sequence[Hashable]) -> np.ndarray:
    """The number of each label [N], from 0 on in order of appearance."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(label, len(numbers)) for label in labels], dtype=int)


def _without_single(strata: np.ndarray) -> np.ndarray:
    """Strata [N] of which those of one unit, which show no variance, are put together; a last one joins the first."""
    single = np.bincount(strata)[strata] == 1
    if single.sum() == 1 and len(strata) > 1:
        strata = np.where(single, strata[~single][0], strata)
    else:
        strata = np.where(single, strata.max(initial=0) + 1, strata)
    return numbered(strata.tolist())
