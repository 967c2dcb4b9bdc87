import os

import librosa
import numpy as np
import pytest
import soundfile

from pipeline.audio.reading import UnusableRecording, read_audio, resample, write_wav

RATE = 16000


def tone(frequency: float, seconds: float = 1.0, rate: int = RATE) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def reason(path) -> str:
    with pytest.raises(UnusableRecording) as caught:
        read_audio(path)
    return caught.value.reason


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3"])
def test_formats_are_read(tmp_path, name):
    soundfile.write(tmp_path / name, tone(440), RATE)
    audio, rate = read_audio(tmp_path / name)
    assert (audio.dtype, audio.ndim, rate) == (np.float32, 1, RATE)
    spectrum = np.abs(np.fft.rfft(audio))
    assert np.argmax(spectrum) * RATE / len(audio) == pytest.approx(440, abs=2)


def test_channels_are_averaged(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.stack([tone(440), 0.5 * tone(440)], axis=1), RATE, subtype="FLOAT")
    np.testing.assert_allclose(read_audio(tmp_path / "a.wav")[0], 0.75 * tone(440), atol=1e-7)


def test_unusable_files_give_reasons(tmp_path):
    write_wav(tmp_path / "good.wav", tone(440), RATE)
    content = (tmp_path / "good.wav").read_bytes()
    (tmp_path / "text.wav").write_text("these are words, not samples\n" * 40)
    (tmp_path / "header.wav").write_bytes(content[:20])
    (tmp_path / "zero.wav").write_bytes(b"")
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "dangling.wav").symlink_to(tmp_path / "gone.wav")
    os.mkfifo(tmp_path / "pipe.wav")
    assert reason(tmp_path / "text.wav").startswith("not a readable audio file (")
    assert reason(tmp_path / "header.wav").startswith("not a readable audio file (")
    assert str(tmp_path) not in reason(tmp_path / "text.wav")
    assert reason(tmp_path / "zero.wav") == "the file is empty (0 bytes)"
    assert reason(tmp_path / "folder.wav") == "a folder, not a file"
    assert reason(tmp_path / "dangling.wav") == "a link to a file that does not exist"
    assert reason(tmp_path / "gone.wav") == "the file does not exist"
    assert reason(tmp_path / "pipe.wav") == "not a regular file"


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_torn_files_are_unusable(tmp_path, name):
    soundfile.write(tmp_path / name, np.random.default_rng(0).uniform(-0.5, 0.5, RATE), RATE)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    expected = "truncated: 15978 of the announced 32000 bytes" if name == "a.wav" else "not a readable audio file"
    assert reason(tmp_path / name).startswith(expected)


def test_streamed_wav_is_read_though_its_length_was_not_known(tmp_path):
    write_wav(tmp_path / "a.wav", tone(440), RATE)
    content = (tmp_path / "a.wav").read_bytes()
    (tmp_path / "a.wav").write_bytes(content.replace((2 * RATE).to_bytes(4, "little"), b"\xff" * 4, 1))
    assert len(read_audio(tmp_path / "a.wav")[0]) == RATE


def test_permission_denied(tmp_path, monkeypatch):
    write_wav(tmp_path / "a.wav", tone(440), RATE)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert reason(tmp_path / "a.wav") == "permission denied"


def test_write_wav_is_16_bit_and_clips(tmp_path):
    audio = np.array([0.0, 0.25, -0.25, 1.7, -1.7], dtype=np.float32)
    write_wav(tmp_path / "new" / "a.wav", audio, 8000)
    info = soundfile.info(tmp_path / "new" / "a.wav")
    assert (info.subtype, info.channels, info.samplerate) == ("PCM_16", 1, 8000)
    np.testing.assert_allclose(read_audio(tmp_path / "new" / "a.wav")[0], np.clip(audio, -1, 1), atol=1 / 32000)


def test_write_wav_refuses_what_is_no_audio_and_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="NaN"):
        write_wav(tmp_path / "a.wav", np.array([0.0, np.nan]), 8000)
    with pytest.raises(ValueError, match="mono"):
        write_wav(tmp_path / "a.wav", np.zeros((2, 3)), 8000)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("source", "target"), [(22050, 8000), (48000, 16000), (8000, 22050)])
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
