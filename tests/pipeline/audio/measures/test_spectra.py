import librosa
import numpy as np
import pytest

from pipeline.audio.measures.spectra import log_mel_spectra, mel_filterbank


@pytest.mark.parametrize(("sample_rate", "n_fft"), [(8000, 256), (16000, 512), (22050, 706), (48000, 1536)])
def test_filterbank_agrees_with_librosa(sample_rate, n_fft):
    expected = librosa.filters.mel(sr=sample_rate, n_fft=n_fft, n_mels=40, fmin=60, fmax=3800)
    np.testing.assert_allclose(mel_filterbank(sample_rate, n_fft), expected.T, atol=1e-6)


@pytest.mark.parametrize("sample_rate", [8000, 16000])
def test_levels_agree_with_librosa(make_voice, sample_rate):
    audio = make_voice(1.0, sample_rate, 0).astype(np.float64)
    window, hop = sample_rate * 32 // 1000, sample_rate // 100
    mel = librosa.feature.melspectrogram(
        y=audio, sr=sample_rate, n_fft=window, hop_length=hop, center=False, n_mels=40, fmin=60, fmax=3800
    )
    expected = librosa.power_to_db(mel, ref=np.max, amin=1e-30, top_db=60.0).T

    levels, active = log_mel_spectra(audio, sample_rate)

    np.testing.assert_allclose(levels, expected, atol=1e-3)
    np.testing.assert_array_equal(active, expected.max(axis=1) > -40)
    assert 0 < active.sum() < len(active)


def test_silence_and_fragments_have_no_frames():
    for audio in (np.zeros(8000), np.full(8000, 0.5), 0.1 * np.ones(200), np.zeros(0)):
        levels, active = log_mel_spectra(audio, 8000)
        assert levels.shape == (0, 40)
        assert active.shape == (0,)
