import math

import numpy as np
import pytest

from pipeline.audio.measures.frechet import FrechetStatistics, frechet_distance
from pipeline.audio.measures.gate import FlatnessGate
from pipeline.audio.measures.summary import measure_speech, summarise
from pipeline.evaluation.body import Body, gather, measure_body, measures_of_whole
from pipeline.evaluation.clip import Clip
from pipeline.evaluation.sound import audio_metrics, clip_moments, clip_rows, measure_bodies, measure_clips
from pipeline.evaluation.speakers import Speakers
from pipeline.preparation.origins import Origin
from pipeline.statistics.bootstrap import bias_of
from pipeline.statistics.frechet import ClipMoments, FrechetDistance

RATE = 8000


def noise(n: int, seed: int, smoothing: int = 1) -> list[np.ndarray]:
    """Utterances of noise, the duller the more it is smoothed."""
    generator = np.random.default_rng(seed)
    window = np.ones(smoothing) / smoothing
    return [np.convolve(0.1 * generator.standard_normal(RATE), window).astype(np.float32) for _ in range(n)]


def clips(**kinds: list[np.ndarray]) -> list[Clip]:
    return [Clip(kind, number, audio) for kind, body in kinds.items() for number, audio in enumerate(body)]


def bodies_of(**kinds: list[np.ndarray]) -> list[Body]:
    given = clips(**kinds)
    return gather(given, measure_clips(given, RATE), [], Speakers("untold"))


@pytest.fixture(scope="module")
def references() -> tuple[FrechetStatistics, FrechetStatistics]:
    return tuple(FrechetStatistics.from_audio(noise(4, seed, width), RATE) for seed, width in ((1, 2), (2, 1)))


def test_every_body_gets_its_own_measures(references) -> None:
    white, dull = noise(6, seed=1), noise(6, seed=2, smoothing=8)
    silence = [np.zeros(RATE, np.float32)] * 2
    bodies = bodies_of(codec=white, continuation=dull, unprompted=white, tone=silence)
    measures = measure_bodies(bodies, *references)
    assert list(measures) == ["codec", "generated", "continuation", "unprompted", "tone"]
    expected = {"codec": white, "continuation": dull, "unprompted": white, "generated": [*dull, *white]}
    for name, audio in expected.items():
        whole = measure_speech(audio, RATE, references[0])
        for measure in ("flatness", "flatness_db", "mel_flux_db", "modulation_depth"):
            interval = getattr(measures[name], measure)
            assert interval.value == pytest.approx(getattr(whole, measure))
            assert interval.low <= interval.value <= interval.high
    assert all(np.isnan(value) for value in measures["tone"].row().values())


def test_distances_are_to_both_references_less_what_few_clips_add(references) -> None:
    audio = noise(12, seed=3, smoothing=4)
    [body] = bodies_of(codec=audio)
    measures, whole = measure_body(body, *references), FrechetStatistics.from_audio(audio, RATE)
    moments = ClipMoments.of([clip.statistics for clip in body.clips])
    for interval, reference in zip((measures.fd, measures.fd_undecoded), references, strict=True):
        bias = bias_of(FrechetDistance(moments, reference), body.design)
        assert interval.value == pytest.approx(frechet_distance(whole, reference) - bias, rel=1e-3)
        assert 0 < bias < 0.5 * interval.value
        assert interval.low < interval.value < interval.high


def test_clips_of_one_document_are_one_piece_of_evidence() -> None:
    given = [Clip("continuation", number, audio, document=number % 6) for number, audio in enumerate(noise(12, seed=4))]
    origins = [Origin(f"{i}.wav", "ann" if i < 3 else "bob") for i in range(6)]
    measured = measure_clips(given, RATE)
    for kind, freedom in (("known", 4), ("untold", 5)):
        for body in gather(given, measured, origins, Speakers(kind)):
            assert body.design.degrees_of_freedom == freedom
            weights = body.design.resample(20, seed=0)
            np.testing.assert_array_equal(weights[:, :6], weights[:, 6:])


def test_the_whole_of_recorded_speech_has_measures_and_no_intervals(references) -> None:
    speech = measure_speech(noise(3, seed=5), RATE, None)
    row = measures_of_whole(speech, *references).row()
    assert row["fd"] == frechet_distance(speech.statistics, references[0])
    assert row["flatness_db"] == pytest.approx(10 * math.log10(row["flatness"]))
    assert all(np.isnan(value) for name, value in row.items() if name.endswith(("_low", "_high")))


def test_metrics_hold_every_measure_with_its_bounds(references) -> None:
    kinds = ("codec", "continuation", "unprompted", "unigram_random")
    measures = measure_bodies(bodies_of(**{kind: noise(10, seed) for seed, kind in enumerate(kinds)}), *references)
    real = measure_speech(noise(4, seed=9), RATE, None)
    metrics = audio_metrics(measures, real, FlatnessGate(0.5, 2.0, 0.01, 0.9))
    own = {name for name in metrics if name.count("/") == 1 and f"{name}/low" in metrics}
    assert own == {
        "audio/flatness", "audio/flatness_db", "audio/fd", "audio/fd_reference", "audio/fd_unigram_random",
        "audio/fd_undecoded", "audio/fd_undecoded_reference", "audio/mel_flux_db", "audio/modulation_depth",
    }  # fmt: skip
    assert all(metrics[f"{name}/low"] <= metrics[name] <= metrics[f"{name}/high"] for name in own)
    assert metrics["audio/flatness_reference"] == real.flatness
    assert metrics["audio/fd_reference"] == measures["codec"].fd.value


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
