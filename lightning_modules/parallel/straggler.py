"""The rank that the others wait for again and again."""

import statistics
from collections.abc import Sequence
from typing import NamedTuple

# So many times the median rank's work are slow, if they are so much of a step: else nobody waits for them.
SLOW = 1.25
SHARE_OF_STEP = 0.6
# In a row: one long pause may be anybody's.
TIMES = 2


class Straggler(NamedTuple):
    """A rank that works longer on every step than others do.

    Attributes:
        rank: which.
        ratio: of its work to the median rank's.
        work: seconds a step, without its waiting for others.
        step: seconds a step.
    """

    rank: int
    ratio: float
    work: float
    step: float


class Stragglers:
    """Finds the slow rank in what ranks say of themselves."""

    def __init__(self) -> None:
        self._candidate: int | None = None
        self._times = 0

    def observe(self, work: Sequence[float], step: float) -> Straggler | None:
        """The rank that has just become one, or None.

        Args:
            work: every rank's seconds a step without waiting.
            step: seconds a step, the same for all.
        """
        found = slowest(work, step)
        is_slow = found.ratio >= SLOW and found.work >= SHARE_OF_STEP * step
        rank = found.rank if is_slow else None
        self._times = self._times + 1 if rank == self._candidate else 1
        self._candidate = rank
        return found if is_slow and self._times == TIMES else None


def slowest(work: Sequence[float], step: float) -> Straggler:
    """The rank that works longest."""
    rank = max(range(len(work)), key=work.__getitem__)
    # Of two ranks the faster one.
    median = statistics.median_low(work)
    return Straggler(rank, work[rank] / max(median, 1e-9), work[rank], step)
