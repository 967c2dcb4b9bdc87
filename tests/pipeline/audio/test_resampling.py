import tracemalloc

import librosa
import numpy as np
import pytest
import torch
import torchaudio.functional

from pipeline.audio.resampling import CPU, LARGEST_TABLE, resample, resample_many, table_size

RATE = 16000


def tone(frequency: float, seconds: float = 1.0, rate: int = RATE) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


@pytest.mark.parametrize(
    ("source", "target"), [(22050, 8000), (48000, 16000), (8000, 22050), (47999, 8000), (16000, 23999)]
)
def test_resample_keeps_tones_and_suppresses_aliases(source, target):
    def level(frequency: float) -> float:
        middle = resample(tone(frequency, rate=source), source, target)[target // 4 : -target // 4]
        return 20 * np.log10(np.sqrt(2 * np.mean(middle.astype(np.float64) ** 2)) / 0.5 + 1e-12)

    nyquist = min(source, target) / 2
    assert level(0.8 * nyquist) == pytest.approx(0, abs=0.1)
    if target < source:
        assert level(1.05 * nyquist) < -50


def test_resample_agrees_with_librosa():
    audio = sum(tone(frequency, rate=22050) for frequency in (200, 1000, 3000))
    ours, theirs = resample(audio, 22050, 8000), librosa.resample(audio, orig_sr=22050, target_sr=8000)
    assert abs(len(ours) - len(theirs)) <= 1
    np.testing.assert_allclose(ours[1000:-1000], theirs[: len(ours)][1000:-1000], atol=2e-3)


def test_resample_leaves_equal_rates_and_refuses_nonsense():
    np.testing.assert_array_equal(resample(tone(440), RATE, RATE), tone(440))
    assert len(resample(np.zeros(0, np.float32), RATE, 8000)) == 0
    with pytest.raises(ValueError, match="positive"):
        resample(tone(440), RATE, 0)


@pytest.mark.parametrize("source", [8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 88200, 96000, 192000])
def test_the_usual_rates_are_left_to_torchaudio(source, monkeypatch):
    monkeypatch.setattr("pipeline.audio.resampling.soxr.resample", lambda *_, **__: pytest.fail("went to soxr"))
    for target in (8000, 16000, 22050, 24000):
        assert table_size(source, target) <= LARGEST_TABLE
        assert len(resample(tone(440, rate=source), source, target)) == target


@pytest.mark.parametrize("source", [4001, 7999, 44101, 47999, 191_999, 767_999])
def test_no_rate_needs_a_table_out_of_proportion(source, monkeypatch):
    monkeypatch.setattr(torchaudio.functional, "resample", lambda *_, **__: pytest.fail("went to torchaudio"))
    audio = tone(440, rate=source)
    tracemalloc.start()
    resampled = resample(audio, source, 8000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (len(resampled), resampled.dtype) == (8000, np.float32)
    assert peak < 1e7
    np.testing.assert_allclose(resampled[500:-500], tone(440, rate=8000)[500:-500], atol=2e-3)


def test_both_ways_give_the_same_sound(monkeypatch):
    audio = np.sin(2 * np.pi * np.cumsum(np.linspace(100, 3000, 22050)) / 22050).astype(np.float32)
    by_table = resample(audio, 22050, 8000)
    monkeypatch.setattr("pipeline.audio.resampling.LARGEST_TABLE", 0)
    by_soxr = resample(audio, 22050, 8000)
    assert len(by_soxr) == len(by_table)
    np.testing.assert_allclose(by_soxr[200:-200], by_table[200:-200], atol=1e-3)


def test_many_are_resampled_as_each_by_itself():
    sounds = [(tone(300, seconds, rate), rate) for rate in (8000, 16000, 22050, 47999) for seconds in (0.01, 1.0, 0.7)]
    for (samples, rate), together in zip(sounds, resample_many(sounds, 8000, CPU), strict=True):
        alone = resample(samples, rate, 8000)
        assert len(together) == len(alone)
        np.testing.assert_allclose(together.numpy(), alone, atol=1e-6)


@pytest.mark.parametrize(("source", "target"), [(16000, 8000), (22050, 8000), (8000, 16000), (3, 2)])
def test_the_silence_that_makes_lengths_few_changes_nothing(source, target):
    for length in (1, source // 3, source, 5 * source // 3 + 1):
        audio = np.random.default_rng(length).standard_normal(length).astype(np.float32)
        alone = torchaudio.functional.resample(
            torch.from_numpy(audio), source, target, 64, 0.9475937167399596, "sinc_interp_kaiser", 14.769656459379492
        )
        np.testing.assert_allclose(resample(audio, source, target), alone.numpy(), atol=1e-6)
