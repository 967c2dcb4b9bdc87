"""Whether a judge can tell one kind of sound from another."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

# Below, a judge that says which of two sounds is speech is wrong more than once in ten.
TELLS = 0.9


def separation(speech: Sequence[float], other: Sequence[float], better: Literal["higher", "lower"]) -> float:
    """How often a figure prefers speech, of all pairs of speech and another sound: the area under the ROC curve.

    1 where it always does, 0.5 where it cannot tell, and below where it prefers the other; ties count half. NaN where
    there is no pair.
    """
    if not len(speech) or not len(other):
        return float("nan")
    differences = np.subtract.outer(np.asarray(speech, dtype=float), np.asarray(other, dtype=float))
    preferred = np.sign(differences if better == "higher" else -differences)
    return float((preferred + 1).mean() / 2)
