import hashlib
import math
from pathlib import Path

import numpy as np
import pytest
import soundfile

from pipeline.audio import survey as survey_module
from pipeline.audio.reading import UnusableRecording, read_audio, read_take
from pipeline.audio.survey import Statistics, Take, survey

RATE = 8000
NOISE = np.random.default_rng(0).normal(0, 0.1, 2 * RATE).astype(np.float32)


def written(path: Path, *channels: np.ndarray, rate: int = RATE) -> Path:
    soundfile.write(path, np.stack(channels, axis=1), rate, subtype="FLOAT")
    return path


def look(path: Path, silence_rms: float = 1e-4, max_seconds: float = math.inf):
    return survey(path, silence_rms, max_seconds)


@pytest.mark.parametrize("size", [37, 1000, 16000])
def test_statistics_do_not_depend_on_the_blocks(size):
    audio = np.clip(NOISE * 8 + 0.3, -1, 1)
    statistics = Statistics()
    for start in range(0, len(audio), size):
        statistics.add(audio[start : start + size])
    assert statistics.n_frames == len(audio)
    assert statistics.sha256 == hashlib.sha256(audio.tobytes()).hexdigest()
    assert statistics.peak == 1.0
    assert statistics.rms == pytest.approx(np.std(audio, dtype=np.float64), rel=1e-9)
    whole = Statistics()
    whole.add(audio)
    assert statistics.clipped_fraction == whole.clipped_fraction > 0.001


def clipped(*values: float) -> float:
    statistics = Statistics()
    for value in values:
        statistics.add(np.array([value], np.float32))
    return statistics.clipped_fraction * len(values)


def test_only_runs_at_full_scale_count_as_clipped():
    assert clipped(0, 1, -1, 0) == 0
    assert clipped(0, 1, -1, 1, 0) == pytest.approx(3)
    assert clipped(1, 1, 1, 0, 1, 1, 0, -1, -1, -1, -1) == pytest.approx(7)
    assert clipped(*[0.998] * 5) == 0


def test_a_constant_offset_is_no_sound(tmp_path):
    assert look(written(tmp_path / "a.wav", np.full(RATE, 0.5))).rms == pytest.approx(0, abs=1e-9)


def test_samples_that_are_not_finite_are_found(tmp_path):
    assert not look(written(tmp_path / "a.wav", np.where(np.arange(2 * RATE) == 9, np.nan, NOISE))).finite
    assert not look(written(tmp_path / "b.wav", NOISE, np.where(np.arange(2 * RATE) == 9, np.inf, NOISE))).finite


def test_channels_that_cancel_leave_one_of_them(tmp_path):
    path = written(tmp_path / "a.wav", NOISE, -1.01 * NOISE)
    found = look(path)
    assert found.take == Take(2 * RATE, channel=1)
    assert found.notes == ("its channels cancel when averaged: channel 2 is taken",)
    assert found.rms == pytest.approx(0.101, abs=0.002)
    np.testing.assert_array_equal(read_take(path, found.take)[0], np.float32(-1.01) * NOISE)
    np.testing.assert_array_equal(read_audio(path)[0], np.float32(-1.01) * NOISE)
    other = look(written(tmp_path / "b.wav", NOISE[::-1], -NOISE[::-1]))
    assert other.sha256 != found.sha256


def test_other_channels_are_averaged(tmp_path):
    path = written(tmp_path / "a.wav", NOISE, NOISE[::-1], np.zeros(2 * RATE))
    found = look(path)
    assert (found.take, found.notes) == (Take(2 * RATE), ())
    np.testing.assert_allclose(read_take(path, found.take)[0], (NOISE + NOISE[::-1]) / 3, atol=1e-7)


def test_more_is_not_listened_to_than_is_worth_it(tmp_path, monkeypatch):
    path = written(tmp_path / "a.wav", NOISE)
    with pytest.raises(UnusableRecording, match="longer than 0.0002"):
        look(path, max_seconds=1.0)
    monkeypatch.setattr(survey_module, "SILENT_FRAMES", 1 << 17)
    silence = np.full(1 << 20, 0.25)
    assert look(written(tmp_path / "b.wav", np.concatenate([NOISE] * 40))).take.n_frames == 80 * RATE
    for name, parts in {"c.wav": [NOISE, silence], "d.flac": [silence, NOISE]}.items():
        soundfile.write(tmp_path / name, np.concatenate(parts), RATE)
        with pytest.raises(UnusableRecording, match=r"silent for \d+ minutes on end"):
            look(tmp_path / name)


def test_a_file_that_has_changed_is_not_taken_for_the_old_one(tmp_path):
    path = written(tmp_path / "a.wav", NOISE)
    take = look(path).take
    written(path, NOISE[:RATE])
    with pytest.raises(UnusableRecording, match="has changed since it was inspected: 8000 samples fewer"):
        read_take(path, take)
    assert len(read_take(path, Take(5))[0]) == 5
