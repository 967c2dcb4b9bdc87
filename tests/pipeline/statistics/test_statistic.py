import numpy as np
import pytest

from pipeline.statistics.statistic import Deviation, Median, RatioOfSums


def repeated(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return np.repeat(values, weights.astype(int))


@pytest.fixture
def weights() -> np.ndarray:
    return np.random.default_rng(0).multinomial(7, np.full(7, 1 / 7), size=50).astype(float)


@pytest.fixture
def values() -> np.ndarray:
    return np.random.default_rng(1).normal(size=7)


def test_weights_stand_for_repetitions(values: np.ndarray, weights: np.ndarray) -> None:
    sizes = np.arange(1.0, 8.0)
    ratios, means, medians = (
        RatioOfSums(values, sizes)(weights),
        RatioOfSums.mean(values)(weights),
        Median(values)(weights),
    )
    for row, ratio, mean, median in zip(weights, ratios, means, medians, strict=True):
        assert ratio == pytest.approx(repeated(values, row).sum() / repeated(sizes, row).sum())
        assert mean == pytest.approx(repeated(values, row).mean())
        assert median == pytest.approx(np.median(repeated(values, row)))


def test_what_could_not_be_measured_does_not_count(values: np.ndarray) -> None:
    holed = np.array([np.nan, *values, np.nan])
    everything = np.ones((1, 9))
    assert Median(holed)(everything)[0] == np.median(values)
    assert RatioOfSums.mean(holed)(everything)[0] == pytest.approx(values.mean())
    nothing = np.full(3, np.nan)
    assert np.isnan(Median(nothing)(np.ones((2, 3)))).all()
    assert np.isnan(RatioOfSums.mean(nothing)(np.ones((2, 3)))).all()


def test_a_deviation_counts_on_either_side(values: np.ndarray, weights: np.ndarray) -> None:
    median = Median(values)
    np.testing.assert_allclose(Deviation(median, 0.3)(weights), np.abs(median(weights) - 0.3))


@pytest.mark.parametrize("make", [Median, RatioOfSums.mean, lambda values: Deviation(Median(values), 0.1)])
def test_units_taken_out_are_units_that_count_alone(make, values: np.ndarray) -> None:
    chosen = np.isin(np.arange(7), [1, 2, 5]).astype(float)[None]
    whole, part = make(values), make(values).take([1, 2, 5])
    assert part.n_units == 3
    assert part(np.ones((1, 3)))[0] == pytest.approx(whole(chosen)[0])
