import librosa
import numpy as np
import pytest
import scipy.linalg
from safetensors.numpy import load_file, save_file
from scipy.signal import resample

from pipeline.audio.measures.frechet import N_FEATURES, FrechetStatistics, frechet_distance, frechet_features


def brute_force_features(audio, sample_rate):
    mel = librosa.feature.melspectrogram(
        y=audio,
        sr=sample_rate,
        n_fft=sample_rate * 32 // 1000,
        hop_length=sample_rate // 100,
        center=False,
        n_mels=40,
        fmin=60,
        fmax=3800,
    )
    levels = librosa.power_to_db(mel, ref=np.max, amin=1e-30, top_db=60.0).T
    rows = []
    for t in range(2, len(levels) - 2):
        if levels[t].max() > -40:
            rows.append([*levels[t], *(levels[t + 2] - levels[t - 2])])
    return np.array(rows)


def gaussian(rank, seed):
    """Statistics of random features with a covariance of the given rank, before its ridge."""
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(500, rank)) @ generator.normal(size=(rank, N_FEATURES)) + generator.normal()
    statistics = FrechetStatistics()
    statistics.count = len(features)
    statistics.mean = features.mean(axis=0)
    statistics.scatter = np.cov(features.T) * (len(features) - 1)
    return statistics


@pytest.mark.parametrize("sample_rate", [8000, 16000])
def test_features_agree_with_a_frame_by_frame_count(make_voice, sample_rate):
    """Pauses are where dropping frames before taking differences would go wrong, and the voice has them."""
    audio = make_voice(2.0, sample_rate, 0).astype(np.float64)
    features = frechet_features(audio, sample_rate)
    n_frames = 1 + (len(audio) - sample_rate * 32 // 1000) // (sample_rate // 100)
    assert len(features) < 0.9 * n_frames
    np.testing.assert_allclose(features, brute_force_features(audio, sample_rate), atol=1e-3)


def test_streaming_moments_are_those_of_all_features_together(make_voice):
    utterances = [make_voice(seconds, 8000, seed) for seed, seconds in enumerate((0.5, 2.0, 1.0))]
    features = np.concatenate([frechet_features(audio, 8000) for audio in utterances])
    statistics = FrechetStatistics.from_audio(utterances, 8000)
    assert statistics.count == len(features)
    np.testing.assert_allclose(statistics.mean, features.mean(axis=0), atol=1e-10)
    np.testing.assert_allclose(statistics.covariance, np.cov(features.T) + 1e-3 * np.eye(80), atol=1e-9)


def test_merging_is_the_same_as_seeing_everything(make_voice):
    utterances = [make_voice(1.0, 8000, seed) for seed in range(4)]
    whole = FrechetStatistics.from_audio(utterances, 8000)
    parts = FrechetStatistics()
    for part in (utterances[:1], [], utterances[1:]):
        parts.merge(FrechetStatistics.from_audio(part, 8000))
    assert parts.count == whole.count
    np.testing.assert_allclose(parts.mean, whole.mean, atol=1e-10)
    np.testing.assert_allclose(parts.covariance, whole.covariance, atol=1e-9)


@pytest.mark.parametrize("rank", [80, 3])
def test_distance_agrees_with_scipy(rank):
    a, b = gaussian(rank, 0), gaussian(80, 1)
    product_root = scipy.linalg.sqrtm(a.covariance @ b.covariance)
    expected = np.sum((a.mean - b.mean) ** 2) + np.trace(a.covariance + b.covariance - 2 * product_root.real)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("rank", [80, 1])
def test_distance_to_itself_is_nothing(rank):
    statistics = gaussian(rank, 0)
    assert 0 <= frechet_distance(statistics, statistics) < 1e-9 * np.trace(statistics.covariance)


def test_distance_of_shifted_means_is_the_shift_squared():
    a, b = gaussian(80, 0), gaussian(80, 0)
    b.mean = b.mean + 2.0
    assert frechet_distance(a, b) == pytest.approx(4.0 * N_FEATURES, rel=1e-9)


def test_the_sample_rate_hardly_matters(make_voice):
    low = [make_voice(3.0, 8000, seed) for seed in range(3)]
    high = [resample(audio.astype(np.float64), 2 * len(audio)) for audio in low]
    a, b = FrechetStatistics.from_audio(low, 8000), FrechetStatistics.from_audio(high, 16000)
    noise = FrechetStatistics.from_audio([np.random.default_rng(0).normal(size=24000)], 8000)
    assert frechet_distance(a, b) < 1e-4 * frechet_distance(a, noise)


def test_silence_adds_nothing_and_alone_has_no_distance(make_voice):
    statistics = FrechetStatistics.from_audio([make_voice(1.0, 8000, 0)], 8000)
    count = statistics.count
    statistics.update(np.zeros(8000), 8000)
    assert statistics.count == count
    silent = FrechetStatistics.from_audio([np.zeros(8000)], 8000)
    with pytest.raises(ValueError, match="at least two active frames, and there are 0"):
        frechet_distance(statistics, silent)


def test_tensors_go_through_a_safetensors_file(make_voice, tmp_path):
    statistics = FrechetStatistics.from_audio([make_voice(1.0, 8000, 0)], 8000)
    save_file(statistics.to_tensors(), tmp_path / "moments.safetensors")
    read = FrechetStatistics.from_tensors(load_file(tmp_path / "moments.safetensors"))
    assert read.count == statistics.count
    np.testing.assert_array_equal(read.mean, statistics.mean)
    np.testing.assert_array_equal(read.covariance, statistics.covariance)


def test_tensors_of_another_kind_are_refused():
    tensors = FrechetStatistics().to_tensors()
    with pytest.raises(ValueError, match=r"'scatter' of shape \[80, 80\], not shape \[3\]"):
        FrechetStatistics.from_tensors(tensors | {"scatter": np.zeros(3)})
    with pytest.raises(ValueError, match="'mean' of shape .* not nothing"):
        FrechetStatistics.from_tensors({name: tensors[name] for name in ("count", "scatter")})


def test_held_out_speech_is_nearer_to_speech_than_anything_else(human_speech):
    reference = FrechetStatistics.from_audio(human_speech(10), 8000)
    held_out = FrechetStatistics.from_audio(human_speech(0), 8000)
    shuffled = []
    for audio in human_speech(0):
        blocks = audio[: len(audio) // 320 * 320].reshape(-1, 320).copy()
        np.random.default_rng(0).shuffle(blocks)
        shuffled.append(blocks.ravel())
    distances = [frechet_distance(held_out, reference)]
    distances.append(frechet_distance(FrechetStatistics.from_audio(shuffled, 8000), reference))
    distances.append(
        frechet_distance(FrechetStatistics.from_audio([np.random.default_rng(0).normal(size=32000)], 8000), reference)
    )
    assert 5 * distances[0] < distances[1]
    assert 5 * distances[1] < distances[2]
