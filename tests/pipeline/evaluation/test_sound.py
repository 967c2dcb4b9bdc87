import math

import numpy as np
import pytest
import scipy.linalg

from pipeline.audio.measures.frechet import FrechetStatistics
from pipeline.audio.measures.summary import SpeechMeasures, measure_speech, summarise
from pipeline.evaluation.clip import Clip
from pipeline.evaluation.sound import bodies_of, clip_moments, clip_rows, comparison_rows, distance, measure_clips
from pipeline.preparation.origins import Origin

RATE = 8000


def noise(n: int, seed: int, smoothing: int = 1) -> list[np.ndarray]:
    """Utterances of noise, the duller the more it is smoothed."""
    generator = np.random.default_rng(seed)
    window = np.ones(smoothing) / smoothing
    return [np.convolve(0.1 * generator.standard_normal(RATE), window).astype(np.float32) for _ in range(n)]


def clips(**kinds: list[np.ndarray]) -> list[Clip]:
    return [Clip(kind, number, audio) for kind, body in kinds.items() for number, audio in enumerate(body)]


def measure(kinds: dict[str, list[np.ndarray]], reference: FrechetStatistics) -> dict[str, SpeechMeasures]:
    given = clips(**kinds)
    return {name: summarise(body, reference) for name, body in bodies_of(given, measure_clips(given, RATE)).items()}


def test_every_body_gets_its_own_measures() -> None:
    reference = FrechetStatistics.from_audio(noise(3, seed=9), RATE)
    white, dull = noise(2, seed=1), noise(2, seed=2, smoothing=8)
    measures = measure(
        {"codec": white, "continuation": dull, "unprompted": white, "tone": [np.zeros(RATE, np.float32)]}, reference
    )
    assert list(measures) == ["codec", "generated", "continuation", "unprompted", "tone"]
    expected = {"codec": white, "continuation": dull, "unprompted": white, "generated": [*dull, *white]}
    for name, body in expected.items():
        assert measures[name].numbers() == measure_speech(body, RATE, reference).numbers()
    assert measures["codec"].flatness > measures["continuation"].flatness
    assert measures["tone"].n_silent == 1


def test_what_was_given_is_not_measured() -> None:
    given, own = noise(2, seed=3)
    clip = Clip("continuation", 0, np.concatenate([given, own]), document=1, seed=7, n_frames=50, n_given=RATE)
    measured = measure_clips([clip], RATE)
    origins = [Origin("a.wav", "ann"), Origin("b.wav", "bob")]
    [row] = clip_rows([clip], measured, origins, RATE)
    assert summarise(measured, None).numbers() == measure_speech([own], RATE, None).numbers()
    assert (row["kind"], row["number"], row["document"], row["speaker"]) == ("continuation", 0, 1, "bob")
    assert (row["seed"], row["seconds"], row["n_frames"]) == (7, 1.0, 50)
    assert row["flatness"] == measured[0].flatness


def test_the_moments_of_clips_add_up_to_those_of_their_body() -> None:
    given = clips(unprompted=noise(5, seed=4, smoothing=3), tone=[np.zeros(RATE, np.float32)])
    moments = clip_moments(given, measure_clips(given, RATE))
    whole = FrechetStatistics.from_audio([clip.audio for clip in given], RATE)
    merged = FrechetStatistics()
    triangle = np.triu_indices(len(whole.mean))
    for count, mean, scatter in zip(
        *(moments[f"unprompted/{key}"] for key in ("count", "mean", "scatter")), strict=True
    ):
        full = np.zeros_like(whole.scatter)
        full[triangle] = scatter
        clip = FrechetStatistics()
        clip.count, clip.mean, clip.scatter = int(count), mean, full + np.triu(full, 1).T
        merged.merge(clip)
    assert merged.count == whole.count
    np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(merged.scatter, whole.scatter, rtol=1e-4, atol=1)
    assert moments["tone/count"].tolist() == [0]


def frechet_in_scipy(a: FrechetStatistics, b: FrechetStatistics) -> float:
    root = scipy.linalg.sqrtm(a.covariance @ b.covariance).real
    return float(np.sum((a.mean - b.mean) ** 2) + np.trace(a.covariance + b.covariance - 2 * root))


def test_the_comparison_holds_each_body_against_both_references() -> None:
    decoded, undecoded = (FrechetStatistics.from_audio(noise(4, seed, width), RATE) for seed, width in ((1, 2), (2, 1)))
    bodies = {
        "a": noise(4, seed=3, smoothing=4),
        "same": noise(4, seed=1, smoothing=2),
        "b": [np.zeros(99, np.float32)],
    }
    measures = measure(bodies, decoded)
    rows = comparison_rows(measures, decoded, undecoded)
    assert [row["signal"] for row in rows] == ["a", "same", "b"]
    statistics = measures["a"].statistics
    assert rows[0]["fd"] == pytest.approx(frechet_in_scipy(statistics, decoded), rel=1e-3)
    assert rows[0]["fd_undecoded"] == pytest.approx(frechet_in_scipy(statistics, undecoded), rel=1e-3)
    assert rows[1]["fd"] == pytest.approx(0, abs=1e-6)
    assert rows[1]["fd_undecoded"] > 1
    assert rows[0]["flatness_db"] == pytest.approx(10 * math.log10(rows[0]["flatness"]))
    for name in ("flatness", "mel_flux_db", "modulation_depth"):
        assert rows[0][name] == getattr(measures["a"], name)
    assert math.isnan(rows[2]["fd"])
    assert math.isnan(distance(measures["b"], undecoded))
