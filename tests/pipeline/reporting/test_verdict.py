import math

import pytest

from pipeline.reporting.verdict import Grade, judge, judge_distance, judge_flatness, judge_loss

GATE = {"min_ratio": 0.5, "max_ratio": 2.0, "min_flatness": 0.01, "max_flatness": 0.6}
BASELINES = {"eval/loss_uniform": 5.546, "eval/loss_unigram": 5.217, "eval/loss_bigram": 4.402}
DISTANCES = {"audio/fd_reference": 73.1, "audio/fd_unigram_random": 1154.0}
GOOD = {
    **BASELINES,
    **DISTANCES,
    "eval/loss": 3.514,
    "audio/fd": 132.0,
    "audio/flatness": 0.237,
    "audio/flatness_reference": 0.283,
    "audio/flatness_gate": 1.0,
}


def measured(flatness: float, outcome: float) -> dict[str, float]:
    return {"audio/flatness": flatness, "audio/flatness_reference": 0.24, "audio/flatness_gate": outcome}


@pytest.mark.parametrize(
    ("changes", "stamp", "headline"),
    [
        ({}, "Passed", "3.514 nats per token, 0.888 below counting pairs"),
        ({"eval/loss": 7.0}, "Failed", "7.000 nats per token, worse than guessing (5.546)"),
        ({"eval/loss": 5.3}, "Failed", "no better than counting how often each token occurs (5.217)"),
        ({"eval/loss": 4.5}, "Weak", "no better than counting pairs of tokens (4.402)"),
        ({"eval/loss": math.nan}, "Failed", "The test loss is not a number"),
        ({"audio/fd": 1200.0}, "Failed", "no closer to real speech than random tokens (1,154)"),
        ({"audio/fd": 600.0}, "Weak", "nearer to random tokens than to speech"),
        ({"audio/fd": math.nan}, "Failed", "The Fréchet distance is not a number"),
        ({"audio/flatness": 0.0008, "audio/flatness_gate": 0.0}, "Failed", "a tone or beeps"),
        # Two that are poor: the weaker one leads.
        ({"eval/loss": 4.5, "audio/fd": 1200.0}, "Failed", "no closer to real speech"),
        ({"eval/loss": 7.0, "audio/fd": 600.0, "audio/flatness_gate": 0.0}, "Failed", "worse than guessing"),
    ],
)
def test_the_headline_is_the_weakest_of_loss_distance_and_flatness(changes, stamp, headline):
    verdict = judge(GOOD | changes, GATE)
    assert verdict.stamp == stamp
    assert headline in verdict.judgements[0].sentence
    assert len(verdict.judgements) == 3


def test_what_was_not_measured_passes_nothing():
    assert judge({}, GATE).stamp == "Not measured"
    without_audio = {name: value for name, value in GOOD.items() if not name.startswith("audio")}
    assert judge(without_audio, GATE).stamp == "Not all measured"
    assert judge(without_audio | {"eval/loss": 7.0}, GATE).stamp == "Failed"


def test_the_loss_is_placed_among_what_counting_reaches():
    def grade(loss: float) -> Grade:
        return judge_loss(BASELINES | {"eval/loss": loss}).grade

    assert [grade(loss) for loss in (3.5, 4.402, 5.217, 5.546, 6.0)] == [
        Grade.PASSED, Grade.WEAK, Grade.FAILED, Grade.FAILED, Grade.FAILED
    ]  # fmt: skip
    assert judge_loss({"eval/loss": 4.9}).grade is Grade.UNMEASURED


def test_the_distance_is_placed_between_real_speech_and_random_tokens():
    sentence = judge_distance(
        {"audio/fd": 209.4, "audio/fd_reference": 17.45, "audio/fd_unigram_random": 1204.2}
    ).sentence
    assert "12 times that of real speech through the codec" in sentence
    assert "17 % of that of random tokens" in sentence
    alone = judge_distance({"audio/fd": 209.4})
    assert alone.grade is Grade.UNMEASURED
    assert alone.sentence.startswith("The Fréchet distance of generated speech is 209,")


def test_a_passed_gate_names_the_value_the_reference_and_the_range():
    judgement = judge_flatness(measured(0.233, 1), GATE)
    assert judgement.grade is Grade.PASSED
    for part in ("0.233", "0.240", "0.97 times", "0.5 to 2 times"):
        assert part in judgement.sentence


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
    judgement = judge_flatness(measured(flatness, 0), GATE)
    assert judgement.grade is Grade.FAILED
    assert reason in judgement.sentence


def test_the_gate_s_verdict_is_the_evaluation_s_own_even_without_limits():
    assert judge_flatness(measured(0.233, 0), {}).grade is Grade.FAILED
    assert judge_flatness({}, GATE).grade is Grade.UNMEASURED
