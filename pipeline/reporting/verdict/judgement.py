"""What a piece of evidence comes to, and all of them together."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum

from pipeline.reporting.formatting import bounds, number
from pipeline.statistics.interval import Interval


class Grade(IntEnum):
    """How good a measurement is, the weakest first."""

    FAILED = 0
    WEAK = 1
    UNMEASURED = 2
    PASSED = 3


@dataclass(frozen=True)
class Judgement:
    """What one piece of evidence comes to, and why, in one sentence."""

    evidence: str
    grade: Grade
    sentence: str

    @property
    def word(self) -> str:
        """The grade in a word or two."""
        return {
            Grade.FAILED: "failed",
            Grade.WEAK: "weak",
            Grade.UNMEASURED: "not measured",
            Grade.PASSED: "passed",
        }[self.grade]


@dataclass(frozen=True)
class Verdict:
    """All judgements, the weakest first and of equals the strongest evidence: no better than the first of them."""

    judgements: tuple[Judgement, ...]

    @classmethod
    def of(cls, judgements: Iterable[Judgement]) -> "Verdict":
        """The verdict of judgements that come in the order of how strong they are as evidence."""
        return cls(tuple(sorted(judgements, key=lambda judgement: judgement.grade)))

    @property
    def grade(self) -> Grade:
        """The weakest grade."""
        return self.judgements[0].grade

    @property
    def stamp(self) -> str:
        """The grade in a word or two."""
        if all(judgement.grade is Grade.UNMEASURED for judgement in self.judgements):
            return "Not measured"
        return {
            Grade.FAILED: "Failed",
            Grade.WEAK: "Weak",
            Grade.UNMEASURED: "Not all measured",
            Grade.PASSED: "Passed",
        }[self.grade]


def read_interval(metrics: Mapping[str, float], name: str) -> Interval:
    """A metric between its bounds; between itself where none were recorded, NaN where it was not measured."""
    value = metrics.get(name, math.nan)
    low, high = (metrics.get(f"{name}/{end}", math.nan) for end in ("low", "high"))
    return Interval(value, value if math.isnan(low) else low, value if math.isnan(high) else high)


def told(interval: Interval, digits: int = 3) -> str:
    """A figure with its bounds, where it has some: 3.37 (3.32 to 3.42)."""
    if interval.low == interval.high:
        return number(interval.value, digits)
    return f"{number(interval.value, digits)} ({bounds(interval.low, interval.high, lambda x: number(x, digits))})"
