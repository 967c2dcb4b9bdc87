from pathlib import Path

import numpy as np
import pytest
import soundfile

from pipeline.audio.reading import read_audio
from pipeline.audio.source import Source, open_source
from pipeline.audio.survey import survey
from pipeline.audio.unusable import UnusableRecording

RATE = 16000


@pytest.mark.parametrize("form", ["WAV", "FLAC", "OGG", "MP3"])
def test_a_recording_within_a_file_is_read_as_if_it_were_alone(tmp_path: Path, encoded, form):
    alone = encoded(form)
    (tmp_path / "alone").write_bytes(alone)
    (tmp_path / "among").write_bytes(encoded("WAV", 1.0) + alone + encoded("FLAC", 2.0))
    among = Source(str(tmp_path / "among"), len(encoded("WAV", 1.0)), len(alone))
    np.testing.assert_array_equal(read_audio(among)[0], read_audio(tmp_path / "alone")[0])
    stretch = Source(among.path, among.first_byte, among.n_bytes, start=1.0, seconds=0.5)
    np.testing.assert_allclose(read_audio(stretch)[0], read_audio(among)[0][RATE : RATE * 3 // 2], atol=1e-6)


def test_an_archive_that_has_become_shorter_is_named(tmp_path: Path):
    (tmp_path / "a.tar").write_bytes(bytes(100))
    with pytest.raises(UnusableRecording, match="its archive ends at byte 100, before the recording does at 150"):
        open_source(Source(str(tmp_path / "a.tar"), 50, 100))


def test_an_empty_member_is_an_empty_file(tmp_path: Path):
    (tmp_path / "a.tar").write_bytes(bytes(100))
    with pytest.raises(UnusableRecording, match="empty"):
        open_source(Source(str(tmp_path / "a.tar"), 50, 0))


def test_one_channel_is_heard(tmp_path: Path):
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (RATE, 2)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", noise, RATE, subtype="FLOAT")
    path = str(tmp_path / "a.wav")
    for channel in (0, 1):
        np.testing.assert_array_equal(read_audio(Source(path, channel=channel))[0], noise[:, channel])
    np.testing.assert_allclose(read_audio(path)[0], noise.mean(axis=1), atol=1e-7)
    with pytest.raises(UnusableRecording, match="channel 2 is asked for, counted from 0, of 2"):
        survey(Source(path, channel=2), silence_rms=0.0, max_seconds=10)
