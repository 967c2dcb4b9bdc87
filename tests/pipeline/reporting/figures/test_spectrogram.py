import librosa
import numpy as np
import scipy.signal

from pipeline.reporting.clips import Clip
from pipeline.reporting.figures.spectrogram import log_mel, spectrogram

SAMPLE_RATE = 8000


def test_levels_match_windowed_transforms_through_librosas_filters():
    rng = np.random.default_rng(0)
    time = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    audio = (np.sin(2 * np.pi * (200 + 900 * time) * time) + 0.05 * rng.standard_normal(SAMPLE_RATE)).astype(np.float32)
    # 32 ms periodic Hann windows every 16 ms, centred on frames of 1024 samples.
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(audio.astype(np.float64), 512), 1024)[::128]
    window = np.pad(scipy.signal.get_window("hann", 256), 384)
    power = np.abs(np.fft.rfft(frames * window)) ** 2
    filters = librosa.filters.mel(sr=SAMPLE_RATE, n_fft=1024, n_mels=72, fmin=60, fmax=4000, htk=True, norm=None)
    mel = power @ filters.T.astype(np.float64)
    expected = np.maximum(10 * np.log10(mel / mel.max()), -60).T
    np.testing.assert_allclose(log_mel(audio, SAMPLE_RATE, f_max=4000), expected, atol=0.02)


def test_level_does_not_depend_on_gain_and_silence_lies_at_the_floor():
    audio = np.random.default_rng(0).standard_normal(4000).astype(np.float32)
    np.testing.assert_allclose(log_mel(audio, SAMPLE_RATE, 4000), log_mel(0.01 * audio, SAMPLE_RATE, 4000), atol=1e-3)
    assert np.all(log_mel(np.zeros(4000, dtype=np.float32), SAMPLE_RATE, 4000) == -60)


def test_only_a_continuation_marks_where_its_prompt_ends():
    audio = np.random.default_rng(0).standard_normal(4000).astype(np.float32)
    continued = spectrogram(Clip("continuation", audio, SAMPLE_RATE, prompt_seconds=0.2), "a", 0.5, 4000)
    unprompted = spectrogram(Clip("unprompted", audio, SAMPLE_RATE, prompt_seconds=0.2), "b", 0.5, 4000)
    assert ">prompt, then model<" in continued
    assert ">prompt, then model<" not in unprompted


def test_the_picture_is_one_embedded_image():
    audio = np.random.default_rng(0).standard_normal(40000).astype(np.float32)
    svg = spectrogram(Clip("real", audio, SAMPLE_RATE), "c", 5.0, 4000)
    assert svg.count("<image") == 1
    assert len(svg) < 90_000
