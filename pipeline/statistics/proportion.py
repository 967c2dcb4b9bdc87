"""Intervals of shares, as accuracies."""

import math
from collections.abc import Hashable, Sequence

import numpy as np
from scipy.special import ndtri

from pipeline.statistics.interval import LEVEL, Interval


def wilson(successes: float, n: float) -> Interval:
    """The share of successes among `n` independent trials, with the score interval of Wilson (1927).

    It is right where the normal approximation is not: for few trials, and for shares near 0 or 1. Where trials come in
    groups, as several of one utterance, use `clustered_wilson`.
    """
    if n == 0:
        return Interval.unknown()
    z2, share = ndtri((1 + LEVEL) / 2) ** 2, successes / n
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    reach = math.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    return Interval(share, max(0.0, middle - reach), min(1.0, middle + reach))


def clustered_wilson(successes: np.ndarray, clusters: Sequence[Hashable]) -> Interval:
    """As `wilson` where trials come in groups, over as many independent trials as would tell as much (Kish, 1965).

    Sums over clusters vary more than they would if trials were independent: by how much more, trials count less. Where
    all trials agree nothing varies, and every cluster counts as one trial.

    Args:
        successes: of each trial, from 0 to 1 [N].
        clusters: of each trial: those of one cluster are not independent.
    """
    numbers: dict[Hashable, int] = {}
    members = np.array([numbers.setdefault(cluster, len(numbers)) for cluster in clusters], dtype=int)
    n, n_clusters = len(successes), len(numbers)
    if n_clusters < 2:
        return Interval.unknown(float(np.mean(successes)) if n else math.nan)
    share = float(np.mean(successes))
    deviations = np.bincount(members, successes - share)
    variance = float(deviations @ deviations) * n_clusters / (n_clusters - 1) / n**2
    n_independent = min(share * (1 - share) / variance, n) if variance > 0 else n_clusters
    return wilson(share * n_independent, n_independent)
