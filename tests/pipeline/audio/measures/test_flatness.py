import librosa
import numpy as np
import pytest
from scipy.signal import resample

from pipeline.audio.measures.flatness import spectral_flatness


def librosa_flatness(audio, sample_rate):
    n_fft = round(0.064 * sample_rate)
    power = np.abs(librosa.stft(audio.astype(np.float64), n_fft=n_fft, hop_length=n_fft // 2, center=False)) ** 2
    frequencies = librosa.fft_frequencies(sr=sample_rate, n_fft=n_fft)
    power = power[(frequencies >= 100) & (frequencies <= 3800)]
    loudness = power.sum(axis=0)
    average = power[:, loudness > 1e-4 * loudness.max()].mean(axis=1, keepdims=True)
    return librosa.feature.spectral_flatness(S=average / average.max() + 1e-10, power=1.0, amin=1e-30).item()


def tone(frequency, seconds, sample_rate):
    return 0.3 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * sample_rate)) / sample_rate)


@pytest.mark.parametrize("sample_rate", [8000, 16000, 22050])
def test_agrees_with_librosa(make_voice, sample_rate):
    for seed in range(3):
        audio = make_voice(2.0, sample_rate, seed)
        assert spectral_flatness(audio, sample_rate) == pytest.approx(librosa_flatness(audio, sample_rate), rel=1e-9)


def test_agrees_with_librosa_on_human_speech(human_speech):
    values = [spectral_flatness(audio, 8000) for audio in human_speech(0)]
    np.testing.assert_allclose(values, [librosa_flatness(audio, 8000) for audio in human_speech(0)], rtol=1e-9)
    assert 0.1 < np.median(values) < 0.25


@pytest.mark.parametrize("frequency", [220.0, 440.3, 3011.0])
@pytest.mark.parametrize("sample_rate", [8000, 16000])
def test_a_tone_is_not_flat(frequency, sample_rate):
    assert spectral_flatness(tone(frequency, 2.0, sample_rate), sample_rate) < 2e-7


def test_white_noise_is_flat():
    noise = 0.1 * np.random.default_rng(0).standard_normal(4 * 16000)
    assert spectral_flatness(noise, 16000) == pytest.approx(0.995, abs=0.004)


def test_gain_changes_nothing(make_voice):
    audio = make_voice(2.0, 8000, 0)
    assert spectral_flatness(0.01 * audio.astype(np.float64), 8000) == pytest.approx(spectral_flatness(audio, 8000))


def test_added_silence_changes_nothing(make_voice):
    # The utterance fades into silence, so that no new frame straddles an end of sound.
    audio = np.concatenate([make_voice(2.0, 8000, 0), np.zeros(512)])
    silence = np.zeros(20 * 256)
    padded = np.concatenate([silence, audio, silence])
    # Frames at the very start of the sound are new.
    assert spectral_flatness(padded, 8000) == pytest.approx(spectral_flatness(audio, 8000), rel=0.02)
    assert spectral_flatness(np.concatenate([audio, silence]), 8000) == pytest.approx(spectral_flatness(audio, 8000))


def test_resampling_changes_nothing(make_voice):
    audio = make_voice(2.0, 8000, 0).astype(np.float64)
    upsampled = resample(audio, 2 * len(audio))
    assert spectral_flatness(upsampled, 16000) == pytest.approx(spectral_flatness(audio, 8000), rel=1e-3)


@pytest.mark.parametrize(
    "audio",
    [np.zeros(16000), 1e-5 * np.ones(16000), 0.2 * np.ones(16000, np.float32), tone(440, 0.06, 8000), np.zeros(0)],
    ids=["digital silence", "faint", "constant", "short", "empty"],
)
def test_what_cannot_be_heard_has_no_flatness(audio):
    assert np.isnan(spectral_flatness(audio, 8000))


@pytest.mark.parametrize(
    ("audio", "sample_rate", "message"),
    [
        (np.zeros((2, 8000)), 8000, "mix the channels"),
        (np.zeros(8000, np.int16), 8000, "scale integers"),
        (np.full(8000, np.nan), 8000, "NaN"),
        (np.zeros(8000), 6000, "6000 samples a second"),
    ],
)
def test_refuses_audio_it_cannot_measure(audio, sample_rate, message):
    with pytest.raises(ValueError, match=message):
        spectral_flatness(audio, sample_rate)
