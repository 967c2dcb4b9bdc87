import librosa
import numpy as np
import pytest

from pipeline.audio.measures.modulation import mel_flux, modulation_depth


def tone(frequency, seconds, sample_rate=8000):
    return 0.3 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * sample_rate)) / sample_rate)


def brute_force_flux(audio, sample_rate):
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
    changes = []
    for now, later in zip(levels[:-2], levels[2:], strict=True):
        if now.max() > -40 and later.max() > -40:
            changes.append(np.std((later - later.mean()) - (now - now.mean())))
    return np.mean(changes)


@pytest.mark.parametrize("sample_rate", [8000, 16000])
def test_flux_agrees_with_a_frame_by_frame_count(make_voice, sample_rate):
    audio = make_voice(2.0, sample_rate, 1).astype(np.float64)
    assert mel_flux(audio, sample_rate) == pytest.approx(brute_force_flux(audio, sample_rate), abs=1e-3)


def test_a_steady_tone_has_no_flux():
    assert mel_flux(tone(440, 1.0), 8000) < 0.01


def test_flux_does_not_see_gain(make_voice):
    audio = make_voice(1.0, 8000, 0).astype(np.float64)
    assert mel_flux(0.1 * audio, 8000) == pytest.approx(mel_flux(audio, 8000))


def test_flux_does_not_jump_over_a_pause():
    """The difference between what is before a pause and what comes after it is not a change over 20 ms."""
    low, high, pause = tone(300, 1.0), tone(2000, 1.0), np.zeros(4000)
    apart = mel_flux(np.concatenate([low, pause, high]), 8000)
    same = mel_flux(np.concatenate([low, pause, low]), 8000)
    assert apart == pytest.approx(same, rel=0.25)


@pytest.mark.parametrize("depth", [0.0, 0.3, 0.9])
def test_modulation_depth_of_a_modulated_tone(depth):
    """A sinusoidal envelope 1 + m sin has the standard deviation m / √2 about a mean of 1."""
    time = np.arange(32000) / 8000
    audio = tone(800, 4.0) * (1 + depth * np.sin(2 * np.pi * 2 * time))
    assert modulation_depth(audio, 8000) == pytest.approx(depth / np.sqrt(2), abs=0.005)


def test_half_silence_is_modulated_by_its_mean():
    audio = np.concatenate([tone(800, 1.0), np.zeros(8000)])
    assert modulation_depth(audio, 8000) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("measure", [mel_flux, modulation_depth])
@pytest.mark.parametrize("audio", [np.zeros(8000), np.zeros(0), 0.1 * np.ones(50)])
def test_what_cannot_be_heard_has_no_modulation(measure, audio):
    assert np.isnan(measure(audio, 8000))


def test_human_speech(human_speech):
    speech = human_speech(0)
    assert 3 < np.median([mel_flux(audio, 8000) for audio in speech]) < 6
    assert 0.6 < np.median([modulation_depth(audio, 8000) for audio in speech]) < 1.3
