import math

import pytest

from pipeline.reporting.data import ReportData
from pipeline.reporting.sections.headline import accepted_range, gauge, tiles
from pipeline.statistics.interval import Interval


def test_positions_keep_the_order_of_values_and_stay_inside():
    laid = gauge(Interval(209, 180, 240), {"real": 17, "random": 1204}, logarithmic=True, band=(10, 40))
    positions = {label: position for position, label in laid.marks}
    assert 0 <= laid.band[0] < positions["real"] < laid.value < positions["random"] <= 100
    assert positions["real"] < laid.interval[0] < laid.value < sum(laid.interval) < positions["random"]
    halfway = gauge(Interval.unknown(math.sqrt(17 * 1204)), {"real": 17, "random": 1204}, logarithmic=True)
    assert halfway.value == pytest.approx(50)
    assert halfway.interval is None


def test_nothing_to_compare_gives_no_gauge():
    assert gauge(Interval.unknown(math.nan), {"real": 1.0}, logarithmic=False) is None
    assert gauge(Interval.unknown(1.0), {"real": math.nan}, logarithmic=False) is None
    assert gauge(Interval.unknown(0.0), {"real": 1.0}, logarithmic=True) is None
    assert gauge(Interval.unknown(1.0), {"real": 1.0}, logarithmic=True).value == pytest.approx(4)


def test_the_accepted_range_is_the_narrower_of_both_limits():
    gate = {"min_ratio": 0.5, "max_ratio": 2.0, "min_flatness": 0.01, "max_flatness": 0.4}
    report = ReportData({"audio/flatness_reference": 0.24}, configuration={"evaluate": {"flatness_gate": gate}})
    assert accepted_range(report) == pytest.approx((0.12, 0.4))
    assert accepted_range(ReportData({"audio/flatness_reference": 0.24})) is None


def test_a_figure_without_an_interval_stands_alone():
    pairs = {"eval/pairs/reversed": 0.4, "eval/pairs/reversed/bigram": 0.5}
    assert tiles(ReportData(pairs))[0].references == (("Direction of time", "40 %"),)
    pairs |= {"eval/pairs/reversed/low": 0.3, "eval/pairs/reversed/high": 0.5}
    assert tiles(ReportData(pairs))[0].references == (("Direction of time", "40 % (30 to 50)"),)


def test_a_ceiling_above_the_model_is_said_to_be_of_too_few_utterances():
    def meaning(ceiling: float) -> str:
        metrics = {"audio/fd": 57.0, "audio/fd_reference": ceiling}
        return next(tile.meaning for tile in tiles(ReportData(metrics)) if tile.label == "Fréchet distance")

    assert "no model that speaks through it comes nearer" in meaning(16.0)
    assert "too few to place it below the model" in meaning(3845.0)
