"""Intervals of shares, as accuracies."""

import math

from scipy.stats import norm

from pipeline.statistics.interval import LEVEL, Interval


def wilson(successes: float, n: float) -> Interval:
    """The share of successes among `n` independent trials, with the score interval of Wilson (1927).

    It is right where the normal approximation is not: for few trials, and for shares near 0 or 1. Where trials come in
    groups, as several of one utterance, use `bootstrap` with clusters.
    """
    if n == 0:
        return Interval.unknown()
    z2, share = norm.ppf((1 + LEVEL) / 2) ** 2, successes / n
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    reach = math.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    return Interval(share, max(0.0, middle - reach), min(1.0, middle + reach))
