"""Whether one model is better than another: differences over the same units, and what can be said of them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from scipy.special import ndtri, stdtrit

from pipeline.statistics.bootstrap import N_RESAMPLES, bias_of, value_of
from pipeline.statistics.interval import LEVEL, Interval
from pipeline.statistics.resampling import Design
from pipeline.statistics.statistic import Statistic

# How often a difference of the size seen would be told, had there been `n_more` further units.
POWER = 0.8


class Verdict(StrEnum):
    """What can be said of the second model beside the first."""

    BETTER = "better"
    WORSE = "worse"
    CANNOT_TELL = "cannot tell"


@dataclass(frozen=True)
class Pair:
    """A metric of two models over the same units.

    Attributes:
        first: the metric of the model that the other is held against.
        second: that of the other, over the same units in the same order.
        design: how the units came about.
        lower_is_better: which direction is good.
        training_noise: the standard deviation of the difference between trainings of two seeds, by their seeds alone; 0
            asks about these two models, and not about how they were trained.
    """

    first: Statistic
    second: Statistic
    design: Design
    lower_is_better: bool = True
    training_noise: float = 0.0


@dataclass(frozen=True)
class PairedDifference:
    """What a comparison says of one metric.

    Attributes:
        difference: the second's value less the first's, with an interval wide enough that, of all the metrics compared
            together, none of them misses its difference in 95 % of all comparisons.
        verdict: "better" or "worse" where the interval leaves out 0.
        n_units: over how many units.
        n_more: how many more units it would take to tell a difference of the size seen, four times out of five; 0 where
            it is told; None where no number would do, because trainings differ more than that by their seeds.
    """

    difference: Interval
    verdict: Verdict
    n_units: int
    n_more: int | None


def compare(pairs: Mapping[str, Pair], n_resamples: int = N_RESAMPLES, seed: int = 0) -> dict[str, PairedDifference]:
    """Compare two models on every metric. What is said of all of them together errs in 5 % of comparisons of equals.

    The standard error of a difference is that of resamples which draw the same units for both models; the interval is
    Student's, at a level of 5 % over the number of metrics (Bonferroni), because extreme percentiles of resamples are
    known too badly.

    Args:
        pairs: by the metric's name.
        n_resamples: how often units are drawn.
        seed: of the draws.
    """
    return {name: _compare(pair, (1 - LEVEL) / len(pairs), n_resamples, seed) for name, pair in pairs.items()}


def _compare(pair: Pair, error: float, n_resamples: int, seed: int) -> PairedDifference:
    n = pair.design.n_units
    if pair.first.n_units != n or pair.second.n_units != n:
        raise ValueError(f"A pair of {pair.first.n_units} and {pair.second.n_units} units is no pair of {n}.")
    freedom = pair.design.degrees_of_freedom
    if n == 0 or freedom < 1:
        return PairedDifference(Interval.unknown(), Verdict.CANNOT_TELL, n, None)
    first, second = (value_of(side) - bias_of(side, pair.design) for side in (pair.first, pair.second))
    value = second - first
    if not math.isfinite(value):
        return PairedDifference(Interval.unknown(value), Verdict.CANNOT_TELL, n, None)
    weights = pair.design.resample(n_resamples, seed)
    sampling = float(np.nanstd(pair.second(weights) - pair.first(weights)))
    critical = float(stdtrit(freedom, 1 - error / 2))
    reach = critical * math.hypot(sampling, pair.training_noise)
    difference = Interval(value, value - reach, value + reach)
    verdict = _verdict(difference, pair.lower_is_better)
    n_more = 0 if verdict is not Verdict.CANNOT_TELL else _n_more(value, sampling, pair.training_noise, critical, n)
    return PairedDifference(difference, verdict, n, n_more)


def _verdict(difference: Interval, lower_is_better: bool) -> Verdict:
    if not (difference.low > 0 or difference.high < 0):
        return Verdict.CANNOT_TELL
    return Verdict.BETTER if (difference.value < 0) == lower_is_better else Verdict.WORSE


def _n_more(difference: float, sampling: float, training: float, critical: float, n: int) -> int | None:
    """Units beyond `n`, of which the sampling error shrinks with the root, until the difference stands out."""
    tolerable = (abs(difference) / (critical + ndtri(POWER))) ** 2 - training**2
    if not tolerable > 0:
        return None
    return max(1, math.ceil(n * sampling**2 / tolerable) - n)
