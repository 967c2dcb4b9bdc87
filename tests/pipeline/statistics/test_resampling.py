import numpy as np

from pipeline.statistics.resampling import Design


def test_every_resample_is_as_large_as_what_there_is() -> None:
    weights = Design(10).resample(200, seed=0)
    np.testing.assert_allclose(weights.sum(axis=1), 10)
    # Drawn with replacement: units miss, and units repeat.
    assert (weights == 0).any()
    assert (weights > 1.5).any()
    np.testing.assert_array_equal(weights, Design(10).resample(200, seed=0))
    assert not np.array_equal(weights, Design(10).resample(200, seed=1))


def test_strata_keep_their_shares() -> None:
    strata = list("aaabbbbb")
    weights = Design(8, strata=strata).resample(100, seed=0)
    np.testing.assert_allclose(weights[:, :3].sum(axis=1), 3)
    np.testing.assert_allclose(weights[:, 3:].sum(axis=1), 5)
    assert Design(8, strata=strata).degrees_of_freedom == 6


def test_the_variance_of_small_strata_is_not_too_small() -> None:
    values = np.random.default_rng(0).normal(size=4)
    means = Design(4).resample(100_000, seed=0) @ values / 4
    assert np.isclose(means.var(), values.var(ddof=1) / 4, rtol=0.02)


def test_clusters_come_and_go_as_wholes() -> None:
    clusters = list("aabbccddee")
    weights = Design(10, clusters=clusters).resample(100, seed=0)
    np.testing.assert_array_equal(weights[:, ::2], weights[:, 1::2])
    assert Design(10, clusters=clusters).degrees_of_freedom == 4


def test_clusters_stay_within_their_stratum() -> None:
    design = Design(12, strata=list("xxxxxxyyyyyy"), clusters=list("aabbccddeeff"))
    weights = design.resample(100, seed=0)
    np.testing.assert_array_equal(weights[:, ::2], weights[:, 1::2])
    np.testing.assert_allclose(weights[:, :6].sum(axis=1), 6)
    assert design.degrees_of_freedom == 4


def test_others_stand_in_for_what_is_left_out() -> None:
    weights, shares = Design(5, strata=list("xxyyy")).leave_one_out()
    np.testing.assert_allclose(weights[0], [0, 2, 1, 1, 1])
    np.testing.assert_allclose(weights[4], [1, 1, 1.5, 1.5, 0])
    np.testing.assert_allclose(shares, [1 / 2, 1 / 2, 2 / 3, 2 / 3, 2 / 3])
    weights, _ = Design(10, clusters=list("aabbccddee")).leave_one_out()
    np.testing.assert_allclose(weights[1], [1.25, 1.25, 0, 0, 1.25, 1.25, 1.25, 1.25, 1.25, 1.25])


def test_units_are_independent_where_clusters_are_few() -> None:
    weights = Design(10, clusters=list("aaabbbcccc")).resample(100, seed=0)
    assert not np.array_equal(weights[:, 0], weights[:, 1])
    assert Design(10, clusters=list("aaabbbcccc")).degrees_of_freedom == 9


def test_strata_of_one_unit_are_put_together() -> None:
    pooled = Design(6, strata=list("aabcde")).resample(100, seed=0)
    np.testing.assert_allclose(pooled[:, 2:].sum(axis=1), 4)
    assert pooled[:, 2:].std() > 0
    left_over = Design(4, strata=list("aaab")).resample(100, seed=0)
    assert (left_over[:, 3] == 0).any()


def test_designs_of_some_units_keep_their_labels() -> None:
    design = Design(4, strata=list("abab"), clusters=list("wxyz")).take([1, 3])
    assert design == Design(2, strata=["b", "b"], clusters=["x", "z"])


def test_nothing_can_be_drawn_of_nothing_or_one() -> None:
    assert Design(0).resample(5, seed=0).shape == (5, 0)
    assert Design(0).degrees_of_freedom == 0
    assert Design(1).degrees_of_freedom == 0
