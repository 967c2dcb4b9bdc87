import math

import numpy as np
import pytest

from pipeline.audio.measures.controls import control_signals
from pipeline.audio.measures.gate import FlatnessGate
from pipeline.audio.measures.summary import ReferenceStatistics, measure_speech
from pipeline.conversion.sound import judge

RATE = 8000
GATE = FlatnessGate(0.5, 2.0, 0.01, 0.6)


def voices(seed: int, n: int = 4) -> list[np.ndarray]:
    """Harmonics that rise and fall over a little noise: as flat as speech."""
    generator = np.random.default_rng(seed)
    time = np.arange(2 * RATE) / RATE
    audio = []
    for _ in range(n):
        phase = 2 * np.pi * np.cumsum(generator.uniform(100, 200) + 40 * np.sin(3 * time)) / RATE
        tones = sum(np.sin(k * phase) / k for k in range(1, 18))
        audio.append(0.1 * tones * np.maximum(np.sin(20 * time), 0) + 3e-3 * generator.standard_normal(len(time)))
    return audio


@pytest.fixture(scope="module")
def real() -> ReferenceStatistics:
    return ReferenceStatistics(RATE, measure_speech(voices(0, 8), RATE, None))


def measured(audio: list[np.ndarray], real: ReferenceStatistics):
    return measure_speech(audio, RATE, real.measures.statistics)


def noise() -> list[np.ndarray]:
    return control_signals("white_noise", 4, 2.0, RATE, 1)


def test_speech_passes_beside_noise(real: ReferenceStatistics) -> None:
    check = judge(measured(voices(1), real), measured(noise(), real), real, GATE, is_trained=True)
    assert check.status == "pass"
    assert check.numbers["fd_over_random"] < 1
    assert check.numbers["clips"] == 4


@pytest.mark.parametrize(("is_trained", "status"), [(True, "fail"), (False, "warn")])
@pytest.mark.parametrize("kind", ["tone", "white_noise", "silence"])
def test_what_is_no_speech_fails_a_trained_model(
    real: ReferenceStatistics, kind: str, is_trained: bool, status: str
) -> None:
    audio = [np.zeros(RATE)] * 4 if kind == "silence" else control_signals(kind, 4, 2.0, RATE, 1)
    check = judge(measured(audio, real), measured(voices(1), real), real, GATE, is_trained)
    assert check.status == status
    assert math.isnan(check.numbers["flatness"]) == (kind == "silence")


def test_speech_no_closer_than_chance_is_a_warning(real: ReferenceStatistics) -> None:
    check = judge(measured(voices(1), real), measured(voices(0, 8), real), real, GATE, is_trained=True)
    assert check.status == "warn"
    assert check.sentence.startswith("no closer to speech than chance")
