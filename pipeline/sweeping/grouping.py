"""Jobs that differ in their seed alone, as one configuration: its mean, and how far that is known."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from pipeline.statistics.interval import LEVEL, Interval
from pipeline.sweeping.job import Job


@dataclass(frozen=True)
class Group:
    """A configuration and the jobs that trained it.

    Attributes:
        configuration: what it was asked for that others were not, without the seed.
        jobs: those that have a finite objective.
        others: those that failed, diverged or were cut short.
        objective: the mean over seeds.
    """

    configuration: tuple[str, ...]
    jobs: tuple[Job, ...]
    others: tuple[Job, ...]
    objective: Interval

    @property
    def title(self) -> str:
        """Its settings, in a line."""
        return ", ".join(self.configuration) or "the only configuration"


def grouped(jobs: Iterable[Job], sign: int = 1) -> list[Group]:
    """The configurations of a sweep, the best first, those without a result last.

    Args:
        jobs: that have ended.
        sign: 1 where a small objective is good, -1 where a large one is.
    """
    members: dict[tuple[str, ...], list[Job]] = {}
    for job in jobs:
        members.setdefault(job.configuration, []).append(job)
    groups = [_group(configuration, jobs) for configuration, jobs in members.items()]
    return sorted(groups, key=lambda group: (not group.jobs, sign * group.objective.value if group.jobs else 0.0))


def best_job(group: Group, sign: int = 1) -> Job:
    """The best of a configuration's jobs."""
    return min(group.jobs, key=lambda job: sign * (job.objective or 0.0))


def mean_over_seeds(values: Sequence[float]) -> Interval:
    """The mean with Student's interval, which a single training does not have."""
    if len(values) < 2:
        return Interval.unknown(values[0] if values else math.nan)
    mean = float(np.mean(values))
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    half = float(stdtrit(len(values) - 1, (1 + LEVEL) / 2)) * error
    return Interval(mean, mean - half, mean + half)


def _group(configuration: tuple[str, ...], jobs: Sequence[Job]) -> Group:
    measured = tuple(job for job in jobs if job.objective is not None and math.isfinite(job.objective))
    others = tuple(job for job in jobs if job not in measured)
    return Group(configuration, measured, others, mean_over_seeds([float(job.objective or 0.0) for job in measured]))
