"""A figure with the interval that it is known to."""

import math
from collections.abc import Callable
from dataclasses import dataclass

LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """An estimate, and bounds between which the quantity lies with a confidence of 95 %; NaN where nothing is known."""

    value: float
    low: float
    high: float

    @property
    def is_known(self) -> bool:
        """Whether there are bounds."""
        return not (math.isnan(self.low) or math.isnan(self.high))

    @property
    def half_width(self) -> float:
        """Half the distance of the bounds."""
        return (self.high - self.low) / 2

    def metrics(self, name: str) -> dict[str, float]:
        """The figures under their logged names: the estimate, and its bounds where they are known."""
        bounds = {f"{name}/low": self.low, f"{name}/high": self.high}
        return {name: self.value} | {bound: value for bound, value in bounds.items() if not math.isnan(value)}

    def map(self, function: Callable[[float], float]) -> "Interval":
        """The interval of a function of the quantity that only rises, or only falls."""
        low, high = sorted((function(self.low), function(self.high)))
        return Interval(function(self.value), low, high)

    def lies_below(self, other: "Interval") -> bool:
        """Whether every value in this interval is below every value in the other one."""
        return self.high < other.low

    @classmethod
    def unknown(cls, value: float = math.nan) -> "Interval":
        """An estimate of which there is no telling how far it can be trusted."""
        return cls(value, math.nan, math.nan)
