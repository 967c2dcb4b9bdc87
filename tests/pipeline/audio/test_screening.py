from dataclasses import replace

import pytest

from pipeline.audio.configuration import ScreeningConfig
from pipeline.audio.reading import UnusableRecording
from pipeline.audio.screening import screen
from pipeline.audio.survey import Survey, Take

RATE = 8000
CONFIG = ScreeningConfig(
    silence_rms=1e-4,
    max_clipped_fraction=0.01,
    max_rejected_fraction=0.1,
    damaged="skip",
    min_sample_rate=4000,
    max_sample_rate=768_000,
    max_hours=24,
)
SPEECH = Survey(RATE, Take(RATE), "ab" * 32, rms=0.1, clipped_fraction=0.0, finite=True, peak=0.7)


def reason(config: ScreeningConfig = CONFIG, **changes) -> str:
    with pytest.raises(UnusableRecording) as caught:
        screen(replace(SPEECH, **changes), 0.3, config)
    return caught.value.reason


def test_speech_passes():
    screen(SPEECH, 0.3, CONFIG)
    screen(SPEECH, 1.0, CONFIG)
    screen(replace(SPEECH, notes=("its header does not tell the length; read to the end",)), 0.3, CONFIG)


def test_each_fault_has_its_reason():
    assert reason(take=Take(0)) == "empty: no samples"
    assert reason(finite=False, rms=float("nan")) == "holds NaN or infinite samples"
    assert reason(take=Take(RATE // 4)) == "too short: 0.25 s of at least 0.3 s"
    assert reason(take=Take(int(0.298 * RATE))) == "too short: 0.29 s of at least 0.3 s"
    assert reason(rms=1e-5) == "silent: RMS 1.0e-05 below 0.0001"
    assert reason(clipped_fraction=0.5) == "clipped: 50.0% of the samples, more than 1.0%"
    assert reason(peak=1e38) == "not audio at full scale 1: a sample is 1e+38"
    assert reason(sample_rate=3999) == "sample rate 3999 Hz, not between 4000 and 768000 Hz"
    assert reason(sample_rate=768_001).startswith("sample rate 768001 Hz")


def test_damaged_files_are_skipped_or_used_as_configured():
    damaged = replace(SPEECH, damage="holds 1.0 of 7.1 s")
    assert reason(damage="holds 1.0 of 7.1 s") == "damaged: holds 1.0 of 7.1 s"
    screen(damaged, 0.3, replace(CONFIG, damaged="use"))
    assert reason(replace(CONFIG, damaged="use"), damage="x", take=Take(10)).startswith("too short")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("silence_rms", -1, "between 0 and 1"),
        ("max_clipped_fraction", 2, "between 0 and 1"),
        ("max_rejected_fraction", True, "between 0 and 1"),
        ("damaged", "keep", "`skip` or `use`, not 'keep'"),
        ("min_sample_rate", 0, "above 0"),
        ("max_sample_rate", "48000", "a number above 0"),
        ("max_hours", float("inf"), "a number above 0"),
    ],
)
def test_configuration_names_the_key(name, value, message):
    with pytest.raises(ValueError, match=f"data.screening.{name} must be .*{message}"):
        replace(CONFIG, **{name: value})
