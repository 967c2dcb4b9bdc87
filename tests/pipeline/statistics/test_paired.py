from collections import Counter

import numpy as np
import pytest

from pipeline.statistics.paired import Pair, Verdict, compare
from pipeline.statistics.resampling import Design
from pipeline.statistics.statistic import Median, RatioOfSums

N = 60
METRICS = ("loss", "fd", "accuracy", "wer", "similarity")


def pair(first: np.ndarray, second: np.ndarray, make=RatioOfSums.mean, **options) -> Pair:
    return Pair(make(first), make(second), Design(len(first)), **options)


def verdict_of(name: str, **pairs: Pair) -> Verdict:
    return compare(pairs, n_resamples=500)[name].verdict


@pytest.fixture
def utterances() -> np.ndarray:
    """Values that differ far more between utterances than models do."""
    return np.random.default_rng(0).normal(3.0, 1.0, N)


def test_equals_are_told_apart_in_few_comparisons() -> None:
    """A comparison errs when any of its metrics is called better or worse: at most 5 % do, of 20 one or two."""
    rng = np.random.default_rng(0)

    def draw() -> Pair:
        shared = rng.normal(3.0, 1.0, N)
        first, second = (shared + 0.2 * rng.standard_t(5, N) for _ in range(2))
        return pair(first, second, make=Median if rng.random() < 0.5 else RatioOfSums.mean)

    wrong = [
        any(found.verdict is not Verdict.CANNOT_TELL for found in compare({m: draw() for m in METRICS}, 300).values())
        for _ in range(200)
    ]
    assert sum(wrong[:20]) <= 2
    assert np.mean(wrong) < 0.07


def test_a_small_difference_shows_because_utterances_are_the_same(utterances: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    improved = utterances - 0.1 + 0.1 * rng.normal(size=N)
    [found] = compare({"loss": pair(utterances, improved)}).values()
    assert found.verdict is Verdict.BETTER
    assert found.difference.low < -0.1 < found.difference.high < 0
    assert found.n_more == 0
    unpaired = compare({"loss": pair(utterances, rng.permutation(improved))})["loss"]
    assert unpaired.verdict is Verdict.CANNOT_TELL


def test_which_way_is_good(utterances: np.ndarray) -> None:
    higher = utterances + 1
    assert verdict_of("wer", wer=pair(utterances, higher)) is Verdict.WORSE
    assert verdict_of("similarity", similarity=pair(utterances, higher, lower_is_better=False)) is Verdict.BETTER


def test_more_metrics_take_more_evidence() -> None:
    rng = np.random.default_rng(5)
    noise = rng.normal(size=N)
    noise = (noise - noise.mean()) / noise.std()
    # Two and a half standard errors: enough for one metric, not for the best of forty.
    slight = pair(np.zeros(N), noise - 2.5 / np.sqrt(N))
    others = {f"other_{i}": pair(rng.normal(size=N), rng.normal(size=N)) for i in range(39)}
    assert verdict_of("it", it=slight) is Verdict.BETTER
    assert verdict_of("it", it=slight, **others) is Verdict.CANNOT_TELL


def test_as_many_more_units_as_it_says_do_tell() -> None:
    rng = np.random.default_rng(2)

    def sample(n: int) -> Pair:
        return pair(np.zeros(n), rng.normal(0.2, 1.0, n))

    found = compare({"loss": pair(np.zeros(N), np.tile([1.2, -0.8], N // 2))}, n_resamples=2000)["loss"]
    assert found.verdict is Verdict.CANNOT_TELL
    assert found.n_more is not None
    told = Counter(verdict_of("loss", loss=sample(N + found.n_more)) for _ in range(100))
    assert 70 <= told[Verdict.WORSE] <= 92


def test_trainings_that_differ_by_luck_are_not_told_apart(utterances: np.ndarray) -> None:
    """Of two seeds one predicts every utterance better: true of these models, and no reason to prefer a recipe."""
    luckier = utterances - 0.05
    assert verdict_of("loss", loss=pair(utterances, luckier)) is Verdict.BETTER
    [found] = compare({"loss": pair(utterances, luckier, training_noise=0.05)}).values()
    assert found.verdict is Verdict.CANNOT_TELL
    # No number of utterances helps.
    assert found.n_more is None
    assert verdict_of("loss", loss=pair(utterances, utterances - 1, training_noise=0.05)) is Verdict.BETTER


def test_nothing_is_said_of_nothing() -> None:
    [found] = compare({"loss": pair(np.zeros(0), np.zeros(0))}).values()
    assert (found.verdict, found.n_more) == (Verdict.CANNOT_TELL, None)
    with pytest.raises(ValueError, match="3 and 2 units is no pair of 3"):
        compare({"loss": Pair(RatioOfSums.mean(np.zeros(3)), RatioOfSums.mean(np.zeros(2)), Design(3))})


def test_what_a_small_number_of_units_adds_is_taken_off() -> None:
    """Of two models with equal means one varies more: the squares of their means differ by chance alone."""

    class SquaredMean(RatioOfSums):
        is_biased = True

        def __call__(self, weights: np.ndarray) -> np.ndarray:
            return super().__call__(weights) ** 2

    rng = np.random.default_rng(0)
    differences = []
    for _ in range(200):
        first, second = (SquaredMean(rng.normal(0, sd, 10), np.ones(10)) for sd in (1, 3))
        differences.append(compare({"fd": Pair(first, second, Design(10))}, n_resamples=2)["fd"].difference.value)
    # Uncorrected, the second's would lie (3² − 1²) / 10 above the first's.
    assert abs(np.mean(differences)) < 0.3
