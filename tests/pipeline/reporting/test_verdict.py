import math

import pytest

from pipeline.reporting.verdict import frechet_sentence, gate_verdict, loss_sentence

GATE = {"min_ratio": 0.5, "max_ratio": 2.0, "min_flatness": 0.01, "max_flatness": 0.6}


def measured(flatness: float, outcome: float) -> dict[str, float]:
    return {"audio/flatness": flatness, "audio/flatness_reference": 0.24, "audio/flatness_gate": outcome}


def test_a_passed_gate_names_the_value_the_reference_and_the_range():
    verdict = gate_verdict(measured(0.233, 1), GATE)
    assert verdict.passed is True
    for part in ("0.233", "0.240", "0.97 times", "0.5 to 2 times"):
        assert part in verdict.sentence


@pytest.mark.parametrize(
    ("flatness", "reason"),
    [
        (0.0008, "a tone or beeps"),
        (0.7, "noise rather than speech"),
        (0.1, "more tonal"),
        (0.55, "noisier"),
        (math.nan, "silent"),
    ],
)
def test_a_failed_gate_names_the_limit_that_was_crossed(flatness, reason):
    verdict = gate_verdict(measured(flatness, 0), GATE)
    assert verdict.passed is False
    assert reason in verdict.sentence


def test_the_verdict_is_the_evaluations_own_even_without_limits():
    assert gate_verdict(measured(0.233, 0), {}).passed is False
    assert gate_verdict({}, GATE).passed is None


def test_loss_is_placed_against_the_bigram():
    assert "1.04 below the bigram" in loss_sentence({"eval/loss": 3.512, "eval/loss_bigram": 4.552})
    assert "0.348 above the bigram" in loss_sentence({"eval/loss": 4.9, "eval/loss_bigram": 4.552})
    assert loss_sentence({"eval/loss": 4.9}) is None


def test_distance_is_placed_between_real_speech_and_random_tokens():
    metrics = {"audio/fd": 209.4, "audio/fd_reference": 17.45, "audio/fd_unigram_random": 1204.2}
    assert "12 times that of real speech through the codec" in frechet_sentence(metrics)
    assert "17 % of that of random tokens" in frechet_sentence(metrics)
    assert "no closer than random tokens" in frechet_sentence(metrics | {"audio/fd": 1500.0})
    assert frechet_sentence({"audio/fd": 209.4}) == "The Fréchet distance of generated speech is 209."
    assert frechet_sentence({}) is None
