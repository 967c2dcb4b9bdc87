import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from pipeline.audio.codecs.configuration import MuLawConfig
from pipeline.audio.codecs.mu_law import MuLawCodec
from pipeline.audio.measures.flatness import spectral_flatness
from pipeline.evaluation.clip import Clip
from pipeline.evaluation.listening import control_speech, decode_all, random_speech, write_clips
from pipeline.tokens.ngram import NgramBaselines
from pipeline.tokens.vocabulary import Vocabulary

RATE = 8000
CODEC = MuLawCodec(MuLawConfig(RATE, 256, -23.0))


def noise(n: int, seed: int, smoothing: int = 1) -> list[np.ndarray]:
    """Utterances of noise, the duller the more it is smoothed."""
    generator = np.random.default_rng(seed)
    window = np.ones(smoothing) / smoothing
    return [np.convolve(0.1 * generator.standard_normal(RATE), window).astype(np.float32) for _ in range(n)]


def audio_by_kind(clips: list[Clip]) -> dict[str, list[np.ndarray]]:
    kinds: dict[str, list[np.ndarray]] = {}
    for clip in clips:
        kinds.setdefault(clip.kind, []).append(clip.audio)
        assert clip.number == len(kinds[clip.kind]) - 1
    return kinds


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
    speech = audio_by_kind(random_speech(baselines, CODEC, [4000, 0, 100], seed=1))
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
    first, again, other = (random_speech(baselines, CODEC, [200], seed)[0].audio for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_controls_are_a_tone_and_noise() -> None:
    controls = audio_by_kind(control_speech(3, 0.5, RATE, seed=0))
    assert {name: [len(audio) for audio in signals] for name, signals in controls.items()} == {
        "tone": [4000] * 3,
        "noise": [4000] * 3,
    }
    for tone, sound in zip(controls["tone"], controls["noise"], strict=True):
        assert spectral_flatness(tone, RATE) < 0.01
        assert spectral_flatness(sound, RATE) > 0.4


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
