import io
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from pipeline.audio.reading import read_audio, write_wav
from pipeline.streaming.interruption import Interruption
from pipeline.streaming.sinks import ListenerLeftError, open_sink

AUDIO = (0.5 * np.sin(np.arange(8000) / 5)).astype(np.float32)
BLOCKS = np.split(AUDIO, [100, 1000, 5000])


def test_a_wav_file_is_what_is_written_all_at_once(tmp_path: Path) -> None:
    with open_sink(str(tmp_path / "new" / "speech.wav"), 8000, Interruption()) as sink:
        for block in BLOCKS:
            sink.write(block)
        assert not (tmp_path / "new" / "speech.wav").exists()
    write_wav(tmp_path / "whole.wav", AUDIO, 8000)
    assert (tmp_path / "new" / "speech.wav").read_bytes() == (tmp_path / "whole.wav").read_bytes()
    assert len(list((tmp_path / "new").iterdir())) == 1


@pytest.mark.parametrize("suffix", [".flac", ".ogg", ".mp3"])
def test_other_kinds_of_file_hold_the_same_sound(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"speech{suffix}"
    with open_sink(str(path), 8000, Interruption()) as sink:
        for block in BLOCKS:
            sink.write(block)
    audio, sample_rate = read_audio(path)
    assert sample_rate == 8000
    assert np.corrcoef(audio[1000:7000], AUDIO[1000:7000])[0, 1] > 0.95


def test_an_error_leaves_the_file_of_before(tmp_path: Path) -> None:
    (tmp_path / "speech.wav").write_text("before")

    def fail_midway() -> None:
        with open_sink(str(tmp_path / "speech.wav"), 8000, Interruption()) as sink:
            sink.write(AUDIO)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_midway()
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]


def test_standard_output_is_a_wav_stream_until_its_reader_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(fileno=lambda: writing))
    with open_sink("-", 8000, Interruption()) as sink:
        sink.write(AUDIO)
        stream = b""
        while len(stream) < 44 + 2 * len(AUDIO):
            stream += os.read(reading, 1 << 16)
        heard, _ = soundfile.read(io.BytesIO(stream))
        np.testing.assert_allclose(heard, AUDIO, atol=2**-15)
        os.close(reading)
        with pytest.raises(ListenerLeftError):
            sink.write(AUDIO)
    os.close(writing)
