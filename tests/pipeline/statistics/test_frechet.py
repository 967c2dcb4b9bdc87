import numpy as np
import pytest

from pipeline.audio.measures.frechet import FrechetStatistics, frechet_distance
from pipeline.statistics.bootstrap import bias_of, bootstrap
from pipeline.statistics.frechet import ClipMoments, FrechetDistance
from pipeline.statistics.resampling import Design

N_FEATURES = 10
SHIFT, SPREAD, CLIP_SPREAD = 0.5, 1.5, 1.0
# Between Gaussians of unit covariance, and of another mean and spread in each direction.
TRUTH = N_FEATURES * (SHIFT**2 + (np.sqrt(SPREAD**2 + CLIP_SPREAD**2) - 1) ** 2)


def moments(frames: np.ndarray) -> FrechetStatistics:
    statistics = FrechetStatistics()
    statistics.count, statistics.mean = len(frames), frames.mean(axis=0)
    deviations = frames - statistics.mean
    statistics.scatter = deviations.T @ deviations
    return statistics


def clips(n: int, rng: np.random.Generator, n_frames: int = 30) -> list[FrechetStatistics]:
    """Clips whose frames lie about a mean of the clip's own."""
    means = SHIFT + CLIP_SPREAD * rng.normal(size=(n, N_FEATURES))
    return [moments(mean + SPREAD * rng.normal(size=(n_frames, N_FEATURES))) for mean in means]


@pytest.fixture(scope="module")
def reference() -> FrechetStatistics:
    """Endless frames of unit covariance about 0."""
    statistics = FrechetStatistics()
    statistics.count = 10**9
    statistics.mean, statistics.scatter = np.zeros(N_FEATURES), np.eye(N_FEATURES) * 1e9
    return statistics


def test_weights_stand_for_repeated_clips(reference: FrechetStatistics) -> None:
    few = clips(5, np.random.default_rng(0))
    statistic = FrechetDistance(ClipMoments.of(few), reference)
    for weights in ([1, 1, 1, 1, 1], [0, 3, 1, 0, 1], [0, 0, 0, 0, 5]):
        merged = FrechetStatistics()
        merged.mean, merged.scatter = np.zeros(N_FEATURES), np.zeros((N_FEATURES, N_FEATURES))
        for clip, times in zip(few, weights, strict=True):
            for _ in range(times):
                merged.merge(clip)
        assert statistic(np.array([weights], dtype=float))[0] == pytest.approx(
            frechet_distance(merged, reference), rel=1e-4
        )
    assert np.isnan(statistic(np.zeros((1, 5)))[0])


def test_small_numbers_of_clips_do_not_add_to_the_distance(reference: FrechetStatistics) -> None:
    rng = np.random.default_rng(1)
    raw, corrected = [], []
    for _ in range(60):
        statistic = FrechetDistance(ClipMoments.of(clips(12, rng)), reference)
        raw.append(statistic(np.ones((1, 12)))[0])
        corrected.append(raw[-1] - bias_of(statistic, Design(12)))
    error = np.std(corrected) / np.sqrt(60)
    assert np.mean(raw) > TRUTH + 4 * error
    assert abs(np.mean(corrected) - TRUTH) < 2.5 * error


def test_a_handful_of_clips_is_taken_as_it_is(reference: FrechetStatistics) -> None:
    """What they add could not be told from what they are: taken off, it could leave nothing, and claim to know it."""
    statistic = FrechetDistance(ClipMoments.of(clips(6, np.random.default_rng(0))), reference)
    found = bootstrap(statistic)
    assert found.value == statistic(np.ones((1, 6)))[0]
    assert np.isnan([found.low, found.high]).all()


def test_intervals_hold_the_distance_of_endless_speech(reference: FrechetStatistics) -> None:
    rng = np.random.default_rng(2)
    intervals = [
        bootstrap(FrechetDistance(ClipMoments.of(clips(40, rng)), reference), n_resamples=300) for _ in range(150)
    ]
    assert 0.91 < np.mean([interval.low <= TRUTH <= interval.high for interval in intervals]) < 0.985


def test_clips_taken_out_and_joined(reference: FrechetStatistics) -> None:
    few = ClipMoments.of(clips(5, np.random.default_rng(0)))
    joined = FrechetDistance(ClipMoments.join([few.take([3, 4]), few.take([0, 1, 2])]), reference)
    whole = FrechetDistance(few, reference)
    assert joined(np.ones((1, 5)))[0] == pytest.approx(whole(np.ones((1, 5)))[0])
    assert whole.take([1, 2]).n_units == 2
