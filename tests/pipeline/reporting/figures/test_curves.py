import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.reporting.data import Curve
from pipeline.reporting.figures.curves import spread, training_curves


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=8).map(sorted), st.floats(0.01, 10))
def test_labels_are_moved_apart_and_keep_their_order_and_centre(positions, gap):
    placed = spread(positions, gap)
    assert np.all(np.diff(placed) >= gap - 1e-6)
    assert np.mean(placed) == pytest.approx(np.mean(positions), abs=1e-6)


def test_labels_with_room_stay_where_they_are():
    assert spread([1.0, 2.0, 5.0], 0.5) == [1.0, 2.0, 5.0]


def test_few_curves_are_named_and_many_are_not():
    curve = Curve(np.arange(3.0), np.ones(3))
    few = training_curves({f"layer_{i}": curve for i in range(3)}, "few", "load")
    many = training_curves({f"layer_{i}": curve for i in range(40)}, "many", "load")
    assert few.count(">layer_1<") == 1
    assert ">layer_1<" not in many


def test_baselines_are_labelled_with_their_values():
    curves = {"train/loss": Curve(np.arange(3.0), np.array([5.0, 4.0, 3.0]))}
    assert "bigram 4.55<" in training_curves(curves, "loss", "nats", {"bigram": 4.552})
