"""Which settings the objective depends on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata
from sklearn.ensemble import RandomForestRegressor

from pipeline.sweeping.settings import Setting

# Fewer configurations are too few for a forest to learn from.
FOREST = 20
# Two have always changed places together, or the other way round.
RANKS = 3
N_TREES = 200
N_REPEATS = 20


@dataclass(frozen=True)
class Importance:
    """How much the objective depends on each setting, and how that was found.

    Attributes:
        method: in a sentence.
        shares: from 0 to 1 by setting, the largest first; empty where it cannot be known.
    """

    method: str
    shares: Mapping[str, float]


def importance(settings: Sequence[Setting], objective: np.ndarray) -> Importance:
    """How much the objective depends on each setting.

    Args:
        settings: in which configurations differ.
        objective: the mean of each configuration [N].
    """
    if len(objective) < RANKS:
        return Importance(f"{len(objective)} configurations do not show which settings matter.", {})
    if len(objective) >= FOREST:
        shares = _of_forest(settings, objective)
        method = (
            f"By a random forest on {len(objective)} configurations: by how much its R² falls when the values of a "
            "setting are shuffled, all together 1. It sees what settings do together."
        )
    else:
        shares = {setting.key: _rank_share(setting, objective) for setting in settings}
        method = (
            f"{len(objective)} configurations are too few for a forest. By ranks: the square of Spearman's "
            "correlation, and of names the share of variance between them. Each setting is looked at alone; of few "
            "jobs much of this is luck."
        )
    return Importance(method, dict(sorted(shares.items(), key=lambda item: -item[1])))


def _of_forest(settings: Sequence[Setting], objective: np.ndarray) -> dict[str, float]:
    columns = [_columns(setting) for setting in settings]
    forest = RandomForestRegressor(N_TREES, min_samples_leaf=2, random_state=0).fit(np.hstack(columns), objective)
    places = np.cumsum([0, *(column.shape[1] for column in columns)])
    rng = np.random.default_rng(0)
    baseline, shares = forest.score(np.hstack(columns), objective), {}
    for setting, begin, end in zip(settings, places, places[1:], strict=False):
        falls = []
        for _ in range(N_REPEATS):
            shuffled = np.hstack(columns)
            shuffled[:, begin:end] = rng.permutation(shuffled[:, begin:end])
            falls.append(baseline - forest.score(shuffled, objective))
        shares[setting.key] = max(0.0, float(np.mean(falls)))
    whole = sum(shares.values()) or 1.0
    return {key: share / whole for key, share in shares.items()}


def _columns(setting: Setting) -> np.ndarray:
    """Inputs of the forest [N, C]: a number, or a column for each name."""
    if setting.numbers is not None:
        return setting.places[:, None]
    return np.array([[value == name for name in setting.names] for value in setting.values], float)


def _rank_share(setting: Setting, objective: np.ndarray) -> float:
    ranks = rankdata(objective)
    if np.ptp(ranks) == 0:
        return 0.0
    if setting.numbers is not None:
        return float(np.corrcoef(rankdata(setting.places), ranks)[0, 1] ** 2)
    within = sum(
        float(((group - group.mean()) ** 2).sum())
        for name in setting.names
        for group in [ranks[[value == name for value in setting.values]]]
    )
    return 1 - within / float(((ranks - ranks.mean()) ** 2).sum())
