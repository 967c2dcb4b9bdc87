import json
import math
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import soundfile
import torch

from pipeline.audio.codecs.configuration import MuLawConfig
from pipeline.audio.codecs.mu_law import MuLawCodec
from pipeline.audio.measures.flatness import spectral_flatness
from pipeline.audio.measures.frechet import FrechetStatistics
from pipeline.audio.measures.summary import measure_speech
from pipeline.evaluation.listening import (
    Clip,
    comparison_rows,
    control_speech,
    decode_all,
    distance,
    measure_bodies,
    random_speech,
    write_clips,
)
from pipeline.tokens.ngram import NgramBaselines
from pipeline.tokens.vocabulary import Vocabulary

RATE = 8000
CODEC = MuLawCodec(MuLawConfig(RATE, 256, -23.0))


def noise(n: int, seed: int, smoothing: int = 1) -> list[np.ndarray]:
    """Utterances of noise, the duller the more it is smoothed."""
    generator = np.random.default_rng(seed)
    window = np.ones(smoothing) / smoothing
    return [np.convolve(0.1 * generator.standard_normal(RATE), window).astype(np.float32) for _ in range(n)]


@pytest.fixture
def baselines(make_split) -> NgramBaselines:
    """Counted on speech that has three codes, one of them twice as often as the others."""
    codes = np.tile([10, 20, 10, 30], 500)[:, None]
    return NgramBaselines.fit(*(make_split(name, [codes], Vocabulary(1, 256)) for name in ("train", "validation")))


def test_decoding_keeps_order_and_length() -> None:
    codes = [torch.randint(256, (n, 1), generator=torch.Generator().manual_seed(n)) for n in (50, 0, 7)]
    for audio, utterance in zip(decode_all(CODEC, codes, "decoding"), codes, strict=True):
        np.testing.assert_array_equal(audio, CODEC.decode(utterance).numpy())


def test_random_speech_is_as_long_as_asked_and_as_skewed_as_the_counts(baselines: NgramBaselines) -> None:
    speech = random_speech(baselines, CODEC, [4000, 0, 100], seed=1)
    assert {name: [len(audio) for audio in drawn] for name, drawn in speech.items()} == {
        "unigram_random": [4000, 0, 100],
        "uniform_random": [4000, 0, 100],
    }
    levels = CODEC.decode(torch.tensor([[10], [20], [30]])).numpy()
    unigram, uniform = speech["unigram_random"][0], speech["uniform_random"][0]
    shares = [float(np.mean(unigram == level)) for level in levels]
    assert shares == pytest.approx([0.5, 0.25, 0.25], abs=0.05)
    assert len(np.unique(uniform)) > 250


def test_random_speech_follows_its_seed(baselines: NgramBaselines) -> None:
    first, again, other = (random_speech(baselines, CODEC, [200], seed)["unigram_random"][0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_controls_are_a_tone_and_noise() -> None:
    controls = control_speech(3, 0.5, RATE, seed=0)
    assert {name: [len(audio) for audio in signals] for name, signals in controls.items()} == {
        "tone": [4000] * 3,
        "noise": [4000] * 3,
    }
    for tone, sound in zip(controls["tone"], controls["noise"], strict=True):
        assert spectral_flatness(tone, RATE) < 0.01
        assert spectral_flatness(sound, RATE) > 0.4


def test_every_body_gets_its_own_measures() -> None:
    reference = FrechetStatistics.from_audio(noise(3, seed=9), RATE)
    bodies = {"white": noise(2, seed=1), "dull": noise(2, seed=2, smoothing=8), "silent": [np.zeros(RATE, np.float32)]}
    measures = measure_bodies(bodies, RATE, reference)
    assert list(measures) == list(bodies)
    for name in ("white", "dull"):
        assert measures[name].numbers() == measure_speech(bodies[name], RATE, reference).numbers()
    assert measures["white"].flatness > measures["dull"].flatness
    assert measures["silent"].n_silent == 1


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
    measures = measure_bodies(bodies, RATE, decoded)
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


def test_clips_and_their_table(tmp_path: Path) -> None:
    folder, table = tmp_path / "audio", tmp_path / "audio.json"
    audio = noise(1, seed=0)[0]
    write_clips([Clip("unprompted", 7, audio)], RATE, folder, table)
    clips = [
        Clip("real", 0, audio, "a/1.wav"),
        Clip("continuation", 12, audio[: RATE // 2], "test document 3", 0.2),
        Clip("unprompted", 0, audio[:0]),
    ]
    write_clips(clips, RATE, folder, table)
    assert sorted(path.name for path in folder.iterdir()) == ["continuation_12.wav", "real_00.wav"]
    real, continuation = json.loads(table.read_text())
    assert (real["file"], real["kind"], real["number"], real["source"]) == ("real_00.wav", "real", 0, "a/1.wav")
    assert continuation["file"] == "continuation_12.wav"
    assert (continuation["prompt_seconds"], continuation["seconds"]) == (0.2, 0.5)
    assert real["flatness"] == spectral_flatness(audio, RATE)
    written, rate = soundfile.read(folder / "real_00.wav")
    assert rate == RATE
    np.testing.assert_allclose(written, audio, atol=1 / 32767)
