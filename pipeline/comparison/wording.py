"""Comparisons in words: what the terminal, the page and the report say alike."""

import math

from pipeline.comparison.result import Contest, Outcome
from pipeline.reporting.formatting import number
from pipeline.statistics.paired import Verdict

# Of decimals, as many as the narrower bound needs to show two digits.
DIGITS = 2
# Of a difference of too few units.
NO_INTERVAL = "no interval"


def lead(contest: Contest, baseline: str) -> str:
    """The verdict on a model in one sentence."""
    name = contest.model.label
    if contest.verdict is Verdict.CANNOT_TELL:
        return f"Whether {name} is better than {baseline} cannot be told."
    return f"{name} is {contest.verdict} than {baseline}."


def reasons(contest: Contest) -> list[str]:
    """What the verdict rests on, a sentence for each decisive measure."""
    if not contest.deciding:
        return [f"They share none of the measures that decide ({', '.join(contest.decisive)})."]
    return [f"{reason(outcome)}." for outcome in contest.deciding]


def reason(outcome: Outcome) -> str:
    """One measure's figures and verdict."""
    unit = f" {outcome.measure.unit}" if outcome.measure.unit else ""
    a, b = values(outcome)
    takes = f"; to tell it takes {more(outcome)}" if more(outcome) else ""
    return f"{outcome.measure.title} {b} against {a}{unit} ({difference(outcome)}): {outcome.verdict}{takes}"


def values(outcome: Outcome) -> tuple[str, str]:
    """The baseline's figure and the model's."""
    (a, b), decimals = outcome.values, _decimals(outcome)
    return _fixed(a, decimals), _fixed(b, decimals)


def difference(outcome: Outcome) -> str:
    """The difference, with the bounds that it lies between."""
    if not outcome.difference.difference.is_known:
        return NO_INTERVAL
    return f"{difference_value(outcome)}, {difference_bounds(outcome)}"


def difference_value(outcome: Outcome) -> str:
    """The difference alone."""
    return _signed(outcome.difference.difference.value, _decimals(outcome))


def difference_bounds(outcome: Outcome) -> str:
    """The bounds that the difference lies between."""
    interval, decimals = outcome.difference.difference, _decimals(outcome)
    if not interval.is_known:
        return NO_INTERVAL
    low, high = _signed(interval.low, decimals), _signed(interval.high, decimals)
    return f"95 % {low} to {high}"


def more(outcome: Outcome) -> str:
    """What it would take to tell a difference of the size that was seen."""
    found = outcome.difference
    if outcome.verdict is not Verdict.CANNOT_TELL:
        return ""
    if found.difference.value == 0:
        return ""
    if not found.difference.is_known:
        return f"more {outcome.measure.units}"
    if found.n_more is None:
        return "trainings of more seeds"
    return f"{_two_digits(found.n_more):,} more {outcome.measure.units}"


def meaning(outcome: Outcome) -> str:
    """The unit of a measure, which way is good, and what it was computed from."""
    measure = outcome.measure
    good = "lower is better" if measure.lower_is_better else "higher is better"
    return ", ".join(part for part in (measure.unit, good, f"{outcome.difference.n_units} {measure.units}") if part)


def stamp(verdict: Verdict) -> str:
    """A verdict as a heading."""
    return verdict.capitalize()


def grade(verdict: Verdict) -> str:
    """The class of the page that colours a verdict."""
    return {Verdict.BETTER: "passed", Verdict.WORSE: "failed", Verdict.CANNOT_TELL: "unmeasured"}[verdict]


def _two_digits(count: int) -> int:
    """A count as far as it can be known from one sample: 731 is 740."""
    unit = 10 ** max(0, len(str(count)) - DIGITS)
    return math.ceil(count / unit) * unit


def _decimals(outcome: Outcome) -> int:
    reach = outcome.difference.difference.half_width
    if not math.isfinite(reach) or reach <= 0:
        return 3
    return min(6, max(0, DIGITS - 1 - math.floor(math.log10(reach))))


def _fixed(value: float, decimals: int) -> str:
    return number(value) if not math.isfinite(value) else f"{value:,.{decimals}f}".replace("-", "−")


def _signed(value: float, decimals: int) -> str:
    return number(value) if not math.isfinite(value) else f"{value:+,.{decimals}f}".replace("-", "−")
