"""Figures as functions of how often each unit counts: what resampling needs to know of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np


class Statistic(Protocol):
    """A figure computed from units: utterances, clips, pairs."""

    @property
    def n_units(self) -> int:
        """How many units there are."""
        ...

    @property
    def is_biased(self) -> bool:
        """Whether few units make the figure larger, or smaller, than endlessly many would."""
        ...

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """The figure [B] where each unit counts as often as its weight [B, N] says; NaN where nothing counts."""
        ...

    def take(self, units: Sequence[int]) -> "Statistic":
        """The same figure of these units alone."""
        ...


@dataclass(frozen=True, eq=False)
class RatioOfSums:
    """A sum over a sum, as nats over tokens.

    Attributes:
        numerators: of each unit, [N].
        denominators: likewise.
    """

    numerators: np.ndarray
    denominators: np.ndarray
    is_biased = False

    @classmethod
    def mean(cls, values: np.ndarray) -> "RatioOfSums":
        """The mean of values [N]; those that are NaN do not count."""
        measured = np.isfinite(values)
        return cls(np.where(measured, values, 0.0), measured.astype(float))

    @property
    def n_units(self) -> int:
        """How many units there are."""
        return len(self.numerators)

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """The ratio [B] under weights [B, N]."""
        totals = weights @ self.denominators
        return np.divide(weights @ self.numerators, totals, out=np.full(len(totals), np.nan), where=totals != 0)

    def take(self, units: Sequence[int]) -> "RatioOfSums":
        """The ratio of these units alone."""
        index = np.asarray(units, dtype=int)
        return RatioOfSums(self.numerators[index], self.denominators[index])


@dataclass(frozen=True, eq=False)
class Median:
    """The median of values [N], of which those that are NaN do not count."""

    values: np.ndarray
    is_biased = False

    @property
    def n_units(self) -> int:
        """How many units there are."""
        return len(self.values)

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """The median [B] under weights [B, N]: where half of the weight lies on either side."""
        order = np.argsort(self.values)[: np.isfinite(self.values).sum()]
        values, heights = self.values[order], np.cumsum(weights[:, order], axis=1)
        if not len(order):
            return np.full(len(weights), np.nan)
        half = heights[:, -1:] / 2
        # Where the halves meet between two units, midway.
        lower = values[np.argmax(heights >= half, axis=1)]
        upper = values[np.argmax(heights > half, axis=1)]
        return np.where(heights[:, -1] > 0, (lower + upper) / 2, np.nan)

    def take(self, units: Sequence[int]) -> "Median":
        """The median of these units alone."""
        return Median(self.values[np.asarray(units, dtype=int)])


@dataclass(frozen=True, eq=False)
class Deviation:
    """How far a statistic lies from where it ought to, on either side: a flatness from that of real speech."""

    statistic: Statistic
    target: float
    is_biased = False

    @property
    def n_units(self) -> int:
        """How many units there are."""
        return self.statistic.n_units

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """The distance [B] under weights [B, N]."""
        return np.abs(self.statistic(weights) - self.target)

    def take(self, units: Sequence[int]) -> "Deviation":
        """The distance of these units alone."""
        return Deviation(self.statistic.take(units), self.target)
