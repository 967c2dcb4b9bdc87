import numpy as np
import pytest

from pipeline.audio.configuration import ScreeningConfig
from pipeline.audio.reading import UnusableRecording
from pipeline.audio.screening import clipped_fraction, screen

RATE = 8000
CONFIG = ScreeningConfig(silence_rms=1e-4, max_clipped_fraction=0.01, max_rejected_fraction=0.1)
SPEECH = np.random.default_rng(0).normal(0, 0.1, RATE).astype(np.float32)


def reason(audio: np.ndarray) -> str:
    with pytest.raises(UnusableRecording) as caught:
        screen(audio, RATE, 0.3, CONFIG)
    return caught.value.reason


def with_values(*values: float) -> np.ndarray:
    audio = SPEECH.copy()
    audio[100 : 100 + len(values)] = values
    return audio


def test_speech_passes():
    screen(SPEECH, RATE, 0.3, CONFIG)
    screen(SPEECH, RATE, 1.0, CONFIG)


def test_each_fault_has_its_reason():
    assert reason(SPEECH[:0]) == "empty: no samples"
    assert reason(with_values(np.nan)) == "holds NaN or infinite samples"
    assert reason(with_values(-np.inf)) == "holds NaN or infinite samples"
    assert reason(SPEECH[: RATE // 4]) == "too short: 0.25 s of at least 0.3 s"
    assert reason(SPEECH * np.float32(1e-4)).startswith("silent")
    assert reason(np.clip(SPEECH * 30, -1, 1)).startswith("clipped")


def test_a_constant_offset_is_no_sound():
    assert reason(np.full(RATE, 0.5, np.float32)).startswith("silent")


def test_only_runs_at_full_scale_count_as_clipped():
    assert clipped_fraction(with_values(1.0, -1.0)) == 0
    assert clipped_fraction(with_values(1.0, -1.0, 1.0)) == pytest.approx(3 / RATE)
    assert clipped_fraction(np.array([1, 1, 1, 0, 1, 1, 0, -1, -1, -1, -1], np.float32)) == pytest.approx(7 / 11)
    assert clipped_fraction(np.array([0.998] * 5, np.float32)) == 0


@pytest.mark.parametrize("change", [{"silence_rms": -1}, {"max_clipped_fraction": 2}, {"max_rejected_fraction": True}])
def test_configuration_names_the_key(change):
    values = {"silence_rms": 0.1, "max_clipped_fraction": 0.1, "max_rejected_fraction": 0.1} | change
    with pytest.raises(ValueError, match=f"data.screening.{next(iter(change))} must be a number between 0 and 1"):
        ScreeningConfig(**values)
