import math
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from pipeline.audio.measures.gate import FlatnessGate

GATE = FlatnessGate(min_ratio=0.5, max_ratio=2.0, min_flatness=0.01, max_flatness=0.6)


@pytest.mark.parametrize(
    ("median", "reference", "passed", "reason"),
    [
        (0.2, 0.2, True, "1.00 times the reference's 0.2, within 0.5 to 2"),
        (0.1, 0.2, True, "within"),
        (0.4, 0.2, True, "within"),
        (0.099, 0.2, False, "outside 0.5 to 2"),
        (0.401, 0.2, False, "outside 0.5 to 2"),
        (0.009, 0.01, False, "a tone, not speech"),
        (0.61, 0.5, False, "noise, not speech"),
        (math.nan, 0.2, False, "no generated utterance"),
        (0.2, math.nan, False, "reference corpus"),
        (0.2, 0.0, False, "reference corpus"),
    ],
)
def test_judges_against_the_reference_and_against_fixed_limits(median, reference, passed, reason):
    verdict = GATE.judge(median, reference)
    assert verdict.passed is passed
    assert reason in verdict.reason


@pytest.mark.parametrize(
    "limits",
    [(0, 2, 0.01, 0.6), (1.5, 2, 0.01, 0.6), (0.5, 0.9, 0.01, 0.6), (0.5, 2, 0.6, 0.6), (0.5, 2, -0.1, 0.6)]
    + [(0.5, 2, 0.1, 1.1), (math.nan, 2, 0.01, 0.6), (0.5, 2, 0.01, math.nan)],
)
def test_refuses_limits_that_make_no_sense(limits):
    with pytest.raises(ValueError, match="min_ratio|min_flatness"):
        FlatnessGate(*limits)


def test_the_configured_gate_is_a_gate():
    configured = OmegaConf.load(Path(__file__).parents[4] / "conf" / "evaluate" / "default.yaml")
    assert FlatnessGate(**configured.flatness_gate) == GATE
