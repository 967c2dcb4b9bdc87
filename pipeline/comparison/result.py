"""What comparing came to."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.comparison.evaluated import Evaluated
from pipeline.comparison.measure import Measure
from pipeline.statistics.paired import PairedDifference, Verdict


@dataclass(frozen=True)
class Outcome:
    """One measure of two models.

    Attributes:
        measure: which one.
        values: the figure of either.
        difference: the second's less the first's, and what it means.
    """

    measure: Measure
    values: tuple[float, float]
    difference: PairedDifference

    @property
    def verdict(self) -> Verdict:
        """The test's; but what cannot be measured at all, as the sound of silence, is worse than what can."""
        measured = [math.isfinite(value) for value in self.values]
        if measured == [True, False]:
            return Verdict.WORSE
        return Verdict.BETTER if measured == [False, True] else self.difference.verdict


@dataclass(frozen=True)
class Contest:
    """One model against the baseline.

    Attributes:
        model: which was held against it.
        outcomes: measure by measure.
        decisive: the names of those that decide.
        notes: what has to be known before reading them, in sentences.
        changed: settings of the trainings and evaluations that differ, {name: (the baseline's, the model's)}.
    """

    model: Evaluated
    outcomes: Sequence[Outcome]
    decisive: Sequence[str]
    notes: Sequence[str]
    changed: Mapping[str, tuple[Any, Any]]

    @property
    def verdicts(self) -> dict[str, Verdict]:
        """The verdict on each measure."""
        return {outcome.measure.name: outcome.verdict for outcome in self.outcomes}

    @property
    def deciding(self) -> list[Outcome]:
        """The outcomes that the verdict on the model rests on."""
        return [outcome for outcome in self.outcomes if outcome.measure.name in self.decisive]

    @property
    def verdict(self) -> Verdict:
        """Better: by one decisive measure at least, and worse by none; worse likewise."""
        found = {outcome.verdict for outcome in self.deciding}
        if Verdict.BETTER in found and Verdict.WORSE not in found:
            return Verdict.BETTER
        if Verdict.WORSE in found and Verdict.BETTER not in found:
            return Verdict.WORSE
        return Verdict.CANNOT_TELL


@dataclass(frozen=True)
class Comparison:
    """All models against the first.

    Attributes:
        baseline: the first.
        contests: each other one against it.
    """

    baseline: Evaluated
    contests: Sequence[Contest]

    @property
    def models(self) -> list[Evaluated]:
        """All models, the baseline first."""
        return [self.baseline, *(contest.model for contest in self.contests)]
