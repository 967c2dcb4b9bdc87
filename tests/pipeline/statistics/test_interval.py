import math

import pytest

from pipeline.statistics.interval import Interval


def test_an_interval_becomes_three_metrics() -> None:
    assert Interval(2.0, 1.0, 4.0).metrics("eval/loss") == {
        "eval/loss": 2.0,
        "eval/loss/low": 1.0,
        "eval/loss/high": 4.0,
    }
    assert Interval(2.0, 1.0, 4.0).half_width == 1.5


def test_bounds_stay_in_order_through_functions_that_fall() -> None:
    assert Interval(2.0, 1.0, 4.0).map(lambda x: -x) == Interval(-2.0, -4.0, -1.0)
    assert Interval(0.0, 0.0, 1.0).map(math.exp).high == pytest.approx(math.e)


def test_intervals_that_overlap_are_not_ordered() -> None:
    assert Interval(1.0, 0.0, 2.0).lies_below(Interval(4.0, 3.0, 5.0))
    assert not Interval(1.0, 0.0, 2.0).lies_below(Interval(2.5, 1.5, 3.5))
    assert not Interval.unknown(1.0).lies_below(Interval(4.0, 3.0, 5.0))
