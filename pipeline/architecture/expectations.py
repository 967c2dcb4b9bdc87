"""What a source says of a quantity, and whether a measured value agrees."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

ABSENT = "–"


@dataclass(frozen=True)
class Expected:
    """A stated value: how it reads, the value itself for a program to read, and what agrees with it."""

    text: str
    value: Any
    accepts: Callable[[Any], bool]


def exactly(value: Any) -> Expected:
    """A whole number or a word, to the letter."""
    return Expected(readable(value), value, lambda measured: measured == value)


def about(value: float, tolerance: float, text: str | None = None) -> Expected:
    """A number that was rounded when it was stated, or that is measured with noise."""
    return Expected(text or readable(value), value, lambda measured: abs(measured - value) <= tolerance)


def at_most(limit: float) -> Expected:
    """A bound on an error."""
    return Expected(f"≤ {readable(limit)}", limit, lambda measured: measured <= limit)


def one_of(*values: float, text: str) -> Expected:
    """Any of several values, where the source names one for each phase of training."""
    return Expected(text, list(values), lambda measured: any(abs(measured - value) <= 2e-3 * value for value in values))


def readable(value: Any) -> str:
    """A value as a reader wants to see it: thousands separated, few digits after the point."""
    if value is None:
        return ABSENT
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer() and abs(value) >= 1e4):
        return f"{int(value):,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)
