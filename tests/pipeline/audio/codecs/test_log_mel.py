import librosa
import numpy as np
import pytest
import torch

from pipeline.audio.codecs.log_mel import LogMelSpectrogram, mel_filterbank


@pytest.fixture
def log_mel():
    return LogMelSpectrogram(8000, 512, 160, 80, 0.0, 4000.0, 1e-4)


@pytest.mark.parametrize(("sample_rate", "n_fft"), [(8000, 512), (16000, 1024)])
def test_filterbank_is_librosas(sample_rate, n_fft):
    ours = mel_filterbank(sample_rate, n_fft, 80, 0.0, sample_rate / 2).T.numpy()
    theirs = librosa.filters.mel(sr=sample_rate, n_fft=n_fft, n_mels=80, fmin=0.0, htk=False, norm="slaney")
    # torchaudio builds the triangles in float32, librosa in float64.
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * theirs.max())


def test_log_mel_is_librosas_in_float64(log_mel, speech):
    audio = speech(1.0, seed=1)
    theirs = librosa.feature.melspectrogram(
        y=audio.double().numpy(),
        sr=8000,
        n_fft=512,
        hop_length=160,
        power=1.0,
        n_mels=80,
        fmin=0.0,
        fmax=4000.0,
        pad_mode="reflect",
        dtype=np.float64,
    )
    # float32 against float64: a thousandth of a neper is 0.009 dB.
    np.testing.assert_allclose(log_mel(audio).numpy(), np.log(np.maximum(theirs, 1e-4)).T, rtol=0, atol=1e-3)


def test_silence_lies_on_the_floor(log_mel):
    assert torch.allclose(log_mel(torch.zeros(2000)), torch.tensor(1e-4).log())


@pytest.mark.parametrize(
    ("n_samples", "n_frames"), [(0, 0), (1, 1), (159, 1), (160, 2), (256, 2), (511, 4), (8000, 51)]
)
def test_frame_count_holds_for_short_audio_too(log_mel, n_samples, n_frames):
    assert log_mel(torch.randn(n_samples)).shape == (n_frames, 80)


def test_magnitudes_have_the_log_mel_they_came_from(log_mel, speech):
    frames = log_mel(speech(1.0, seed=2))
    again = (log_mel.magnitudes(frames) @ log_mel.filters).clamp_min(1e-4).log()
    # Clamping the least-squares solution where it is negative costs a little.
    assert float((again - frames).abs().median()) < 0.05


def test_bands_without_a_bin_are_refused():
    with pytest.raises(ValueError, match=r"codec\.n_mels=200 .*codec\.n_fft"):
        mel_filterbank(8000, 256, 200, 0.0, 4000.0)
