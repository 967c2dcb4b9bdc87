import os

import numpy as np
import pytest
import soundfile

from pipeline.audio.reading import UnusableRecording, read_audio, write_wav

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
    assert reason(tmp_path / name).startswith("holds 0.5 of 1.0 s" if name == "a.wav" else "holds 0.")


def test_streamed_wav_is_read_though_its_length_was_not_known(tmp_path):
    write_wav(tmp_path / "a.wav", tone(440), RATE)
    content = (tmp_path / "a.wav").read_bytes()
    (tmp_path / "a.wav").write_bytes(content.replace((2 * RATE).to_bytes(4, "little"), b"\xff" * 4, 1))
    assert len(read_audio(tmp_path / "a.wav")[0]) == RATE


def test_permission_denied(tmp_path, monkeypatch):
    """As root every file can be read: the refusal has to be made up."""
    write_wav(tmp_path / "a.wav", tone(440), RATE)

    def refuse(path, flags):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "open", refuse)
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
