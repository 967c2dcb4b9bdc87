"""Intervals of 95 % hold the truth in about 95 % of samples, and say what they cannot know."""

from collections.abc import Callable

import numpy as np
import pytest

from pipeline.statistics.bootstrap import bootstrap
from pipeline.statistics.resampling import Design
from pipeline.statistics.statistic import Median, RatioOfSums, Statistic

N_SAMPLES, N_RESAMPLES = 400, 500


def coverage(sample: Callable[[np.random.Generator], tuple[Statistic, Design]], truth: float) -> float:
    """The share of samples whose interval holds the truth."""
    generator = np.random.default_rng(0)
    intervals = [bootstrap(*sample(generator), n_resamples=N_RESAMPLES, seed=seed) for seed in range(N_SAMPLES)]
    return float(np.mean([interval.low <= truth <= interval.high for interval in intervals]))


@pytest.mark.parametrize("n", [15, 60])
def test_means(n: int) -> None:
    share = coverage(lambda rng: (RatioOfSums.mean(rng.normal(3, 2, n)), Design(n)), 3.0)
    assert 0.92 < share < 0.98


def test_losses_of_utterances_of_uneven_lengths() -> None:
    """A nat a token, give or take a tenth from one utterance to the next; lengths as skewed as speech has them."""

    def sample(rng: np.random.Generator) -> tuple[Statistic, Design]:
        lengths = np.ceil(rng.lognormal(5, 0.7, 47))
        return RatioOfSums(lengths * rng.normal(1.0, 0.1, 47), lengths), Design(47)

    assert 0.92 < coverage(sample, 1.0) < 0.98


def test_medians_of_skewed_measures() -> None:
    assert 0.92 < coverage(lambda rng: (Median(rng.lognormal(0, 0.8, 64)), Design(64)), 1.0) < 0.98


def voices(rng: np.random.Generator, offsets: np.ndarray, n: int) -> tuple[np.ndarray, list[int]]:
    """`n` values of every speaker, who all lie about their own offset."""
    speakers = np.repeat(np.arange(len(offsets)), n)
    return offsets[speakers] + rng.normal(size=len(speakers)), speakers.tolist()


def test_utterances_of_known_speakers() -> None:
    """The same speakers in every sample: what they differ by is no uncertainty."""
    offsets = np.array([-3.0, -1.0, 0.0, 0.0, 1.0, 3.0])

    def sample(rng: np.random.Generator) -> tuple[Statistic, Design]:
        values, speakers = voices(rng, offsets, 8)
        return RatioOfSums.mean(values), Design(len(values), strata=speakers)

    def ignorant(rng: np.random.Generator) -> tuple[Statistic, Design]:
        statistic, _ = sample(rng)
        return statistic, Design(statistic.n_units)

    assert 0.92 < coverage(sample, 0.0) < 0.98
    assert coverage(ignorant, 0.0) > 0.99


@pytest.mark.parametrize("n_speakers", [6, 15])
def test_speakers_who_were_drawn_themselves(n_speakers: int) -> None:
    """Other speakers in every sample: utterances alone would say far too little of how it could have come out."""

    def sample(rng: np.random.Generator) -> tuple[Statistic, Design]:
        values, speakers = voices(rng, rng.normal(0, 2, n_speakers), 8)
        return RatioOfSums.mean(values), Design(len(values), clusters=speakers)

    def ignorant(rng: np.random.Generator) -> tuple[Statistic, Design]:
        statistic, _ = sample(rng)
        return statistic, Design(statistic.n_units)

    assert 0.91 < coverage(sample, 0.0) < 0.985
    assert coverage(ignorant, 0.0) < 0.7


def test_what_cannot_be_known_is_not_claimed() -> None:
    for n in (1, 4):
        few = bootstrap(RatioOfSums.mean(np.arange(2.0, 2.0 + n)))
        assert few.value == pytest.approx(2 + (n - 1) / 2)
        assert np.isnan([few.low, few.high]).all()
    assert np.isfinite(bootstrap(RatioOfSums.mean(np.arange(5.0))).low)
    for empty in (np.zeros(0), np.full(8, np.nan)):
        assert np.isnan(bootstrap(Median(empty)).value)


def test_an_interval_repeats_and_narrows_with_the_root_of_n() -> None:
    values = np.random.default_rng(0).normal(size=4000)
    wide, narrow = bootstrap(RatioOfSums.mean(values[:250])), bootstrap(RatioOfSums.mean(values))
    assert wide == bootstrap(RatioOfSums.mean(values[:250]))
    assert wide.half_width / narrow.half_width == pytest.approx(4, rel=0.15)
