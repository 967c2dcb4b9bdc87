import numpy as np
import pytest
from scipy.stats import binomtest

from pipeline.statistics.proportion import clustered_wilson, wilson


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (7, 10), (10, 10), (130, 200)])
def test_as_scipy_has_it(successes: int, n: int) -> None:
    expected = binomtest(successes, n).proportion_ci(method="wilson")
    found = wilson(successes, n)
    assert (found.value, found.low, found.high) == pytest.approx((successes / n, expected.low, expected.high))


def test_of_no_trials_nothing_is_known() -> None:
    assert np.isnan(wilson(0, 0).low)


def test_independent_trials_are_clusters_of_one() -> None:
    successes = (np.random.default_rng(0).random(300) < 0.7).astype(float)
    found, alone = clustered_wilson(successes, range(300)), wilson(successes.sum(), 300)
    assert (found.value, found.low, found.high) == pytest.approx((alone.value, alone.low, alone.high), abs=2e-3)


def test_trials_that_repeat_each_other_count_once() -> None:
    successes = (np.random.default_rng(0).random(100) < 0.7).astype(float)
    found = clustered_wilson(np.repeat(successes, 4), np.repeat(np.arange(100), 4).tolist())
    alone = wilson(successes.sum(), 100)
    assert (found.value, found.low, found.high) == pytest.approx((alone.value, alone.low, alone.high), abs=5e-3)


def test_where_all_agree_every_cluster_counts_once() -> None:
    found = clustered_wilson(np.ones(40), [number // 4 for number in range(40)])
    assert (found.value, found.low, found.high) == (1.0, pytest.approx(wilson(10, 10).low), 1.0)


@pytest.mark.parametrize("share", [0.5, 0.8, 0.95])
def test_clustered_intervals_hold_what_they_promise(share: float) -> None:
    rng = np.random.default_rng(1)
    clusters = np.repeat(np.arange(25), 3)
    hits = 0
    for _ in range(400):
        # Utterances differ in how hard they are: beta-distributed with a mean of `share`.
        chances = rng.beta(4 * share, 4 * (1 - share), 25)
        found = clustered_wilson((rng.random(75) < chances[clusters]).astype(float), clusters.tolist())
        hits += found.low <= share <= found.high
    assert 0.91 <= hits / 400 <= 0.99


def test_one_cluster_tells_nothing_of_how_clusters_differ() -> None:
    found = clustered_wilson(np.array([1.0, 0.0]), ["a", "a"])
    assert found.value == 0.5
    assert np.isnan(found.low)
