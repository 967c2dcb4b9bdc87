"""What models are compared by: one figure of two models, computed from the same units."""

import math
from dataclasses import dataclass

from pipeline.statistics.bootstrap import bias_of, value_of
from pipeline.statistics.paired import Pair
from pipeline.statistics.resampling import Design
from pipeline.statistics.statistic import Statistic


@dataclass(frozen=True)
class Measure:
    """A figure, and how it is to be read.

    Attributes:
        name: under which the evaluation logs it.
        title: in words.
        unit: of the figure; empty for shares and scores.
        units: what it is computed from, in the plural.
        lower_is_better: which direction is good.
    """

    name: str
    title: str
    unit: str
    units: str
    lower_is_better: bool = True


@dataclass(frozen=True, eq=False)
class PairedMeasure:
    """A measure of two models, unit i of the one belonging to unit i of the other.

    Attributes:
        measure: what it is.
        a: the one's.
        b: the other's.
        design: how the units came about.
    """

    measure: Measure
    a: Statistic
    b: Statistic
    design: Design

    @property
    def values(self) -> tuple[float, float]:
        """The figure of either, what few units add to it taken off."""
        a, b = (value_of(side) - bias_of(side, self.design) for side in (self.a, self.b))
        return a, b

    def pair(self, training_spread: float) -> Pair:
        """What is tested, where trainings of other seeds lie `training_spread` of their own value apart."""
        noise = training_spread * math.hypot(*self.values)
        return Pair(self.a, self.b, self.design, self.measure.lower_is_better, noise)
