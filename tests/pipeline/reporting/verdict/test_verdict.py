import json
import math
from pathlib import Path

import pytest

from pipeline.reporting.judged import JudgedBody
from pipeline.reporting.verdict import Grade, judge
from pipeline.reporting.verdict.likelihood import judge_loss, judge_pairs
from pipeline.reporting.verdict.listeners import judge_judges
from pipeline.reporting.verdict.sound import judge_distance, judge_flatness
from pipeline.reporting.verdict.variety import judge_variety

GATE = {"min_ratio": 0.5, "max_ratio": 2.0, "min_flatness": 0.01, "max_flatness": 0.6}
BASELINES = {"eval/loss_uniform": 5.546, "eval/loss_unigram": 5.217, "eval/loss_bigram": 4.402}
DISTANCES = {"audio/fd_reference": 73.1, "audio/fd_unigram_random": 1154.0}
TOLD = {"eval/pairs/speaker": 0.95, "eval/pairs/speaker/low": 0.87, "eval/pairs/speaker/bigram": 0.5}
MOVING = {"audio/mel_flux_db": 6.4, "audio/mel_flux_db_reference": 6.7}
GOOD = {
    **BASELINES,
    **DISTANCES,
    **TOLD,
    **MOVING,
    "eval/loss": 3.514,
    "audio/fd": 132.0,
    "audio/flatness": 0.237,
    "audio/flatness_reference": 0.283,
    "audio/flatness_gate": 1.0,
}
# What the evaluation measured of the default recipe, by how far it was trained, and of its trained model with other
# codes in place of those that it drew: its likelihoods are as good as ever, its speech is none.
EVALUATIONS = {
    name: {key: math.nan if value is None else value for key, value in metrics.items()}
    for name, metrics in json.loads((Path(__file__).parent / "evaluations.json").read_text()).items()
}


@pytest.mark.parametrize(
    ("model", "stamp", "first"),
    [
        ("untrained", "Failed", "Minimal pairs"),
        ("50 steps", "Failed", "Fréchet distance"),
        ("200 steps", "Weak", "Fréchet distance"),
        ("collapsed to a tone", "Failed", "Fréchet distance"),
        ("collapsed to one token", "Failed", "Fréchet distance"),
        ("collapsed to a loop", "Failed", "Fréchet distance"),
        ("trained", "Passed", "Minimal pairs"),
    ],
)
def test_only_a_trained_model_that_speaks_passes(model, stamp, first):
    verdict = judge(EVALUATIONS[model], GATE)
    assert (verdict.stamp, verdict.judgements[0].evidence) == (stamp, first)


@pytest.mark.parametrize("model", [name for name in EVALUATIONS if name.startswith("collapsed")])
def test_a_collapse_is_seen_by_more_than_the_distance(model):
    assert judge_variety(EVALUATIONS[model]).grade is Grade.FAILED
    assert judge_loss(EVALUATIONS[model]).grade is Grade.PASSED


def test_a_loop_passes_the_flatness_gate_and_nothing_that_is_said_of_speech():
    assert judge_flatness(EVALUATIONS["collapsed to a loop"], GATE).grade is Grade.PASSED
    assert "goes round in circles" in judge_variety(EVALUATIONS["collapsed to a loop"]).sentence


def measured(flatness: float, outcome: float) -> dict[str, float]:
    return {"audio/flatness": flatness, "audio/flatness_reference": 0.24, "audio/flatness_gate": outcome}


@pytest.mark.parametrize(
    ("changes", "stamp", "headline"),
    [
        ({}, "Passed", "1 of 1 kinds of wrong speech"),
        ({"eval/loss": 7.0}, "Failed", "7.000 nats per token, worse than guessing (5.546)"),
        ({"eval/loss": 5.3}, "Failed", "no better than counting how often each token occurs (5.217)"),
        ({"eval/loss": 4.5}, "Weak", "no better than counting pairs of tokens (4.402)"),
        ({"eval/loss": math.nan}, "Failed", "The test loss is not a number"),
        ({"audio/fd": 1200.0}, "Failed", "no closer to real speech than random tokens, 1,154"),
        ({"audio/fd": 600.0}, "Weak", "nearer to random tokens than to speech"),
        ({"audio/fd": math.nan}, "Failed", "The Fréchet distance is not a number"),
        ({"audio/flatness": 0.0008, "audio/flatness_gate": 0.0}, "Failed", "a tone or beeps"),
        # Two that are poor: the weaker one leads.
        ({"eval/loss": 4.5, "audio/fd": 1200.0}, "Failed", "no closer to real speech"),
        ({"eval/loss": 7.0, "audio/fd": 600.0, "audio/flatness_gate": 0.0}, "Failed", "worse than guessing"),
    ],
)
def test_the_headline_is_the_weakest_evidence(changes, stamp, headline):
    verdict = judge(GOOD | changes, GATE)
    assert verdict.stamp == stamp
    assert headline in verdict.judgements[0].sentence
    assert len(verdict.judgements) == 5


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
    assert "real speech through the codec has 17.4" in sentence
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


def test_the_worse_end_of_an_interval_is_what_counts():
    doubtful = GOOD | {"eval/loss": 4.38, "eval/loss/low": 4.3, "eval/loss/high": 4.45}
    assert "not certainly better than counting pairs" in judge(doubtful, GATE).judgements[0].sentence
    wide = GOOD | {"audio/fd/low": 20.0, "audio/fd/high": 1200.0}
    assert "not certainly closer" in judge_distance(wide).sentence
    edge = GOOD | {"audio/flatness/low": 0.13, "audio/flatness/high": 0.3}
    assert judge_flatness(edge, GATE).grade is Grade.WEAK


def test_pairs_without_an_interval_tell_nothing_either_way():
    few = judge_pairs({key: value for key, value in TOLD.items() if not key.endswith("/low")})
    assert (few.grade, few.sentence) == (
        Grade.UNMEASURED,
        "Held-out utterances are too few for minimal pairs to tell (speaker 95 %; chance is 50 %).",
    )
    by_luck = {"eval/pairs/words": 0.53, "eval/pairs/words/low": 0.41, "eval/pairs/words/bigram": 0.5}
    assert judge_pairs({"eval/pairs/speaker": 0.95} | by_luck).grade is Grade.FAILED


def test_real_speech_whose_distance_may_be_nothing_is_still_something_to_hold_against():
    metrics = GOOD | {"audio/fd_reference": 0.0, "audio/fd_reference/low": 0.0, "audio/fd_reference/high": 54.0}
    assert judge_distance(metrics).grade is Grade.PASSED
    assert judge_distance(metrics | {"audio/fd": 300.0}).grade is Grade.WEAK


def test_most_kinds_of_pairs_have_to_be_told_from_chance_and_better_than_a_bigram():
    also_bigram = {"eval/pairs/reversed": 0.9, "eval/pairs/reversed/low": 0.8, "eval/pairs/reversed/bigram": 0.85}
    by_luck = {"eval/pairs/words": 0.53, "eval/pairs/words/low": 0.41, "eval/pairs/words/bigram": 0.5}
    assert judge_pairs(TOLD | also_bigram).grade is Grade.WEAK
    assert judge_pairs(also_bigram | by_luck).grade is Grade.FAILED
    assert judge_pairs({}).grade is Grade.UNMEASURED


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"long/speech_at_end": 0.2}, "does not last: 20 %"),
        ({"long/repetition_at_end": 0.7}, "goes round in circles: 70 %"),
        ({"copying/copied": 0.3}, "30 % of all clips repeat the training set"),
    ],
)
def test_speech_that_does_not_last_or_was_heard_before_is_weak(changes, says):
    judgement = judge_variety(GOOD | changes)
    assert judgement.grade is Grade.WEAK
    assert says in judgement.sentence


def judged(model: float, least: float, separation: float = 1.0) -> dict[str, JudgedBody]:
    return {
        "generated": JudgedBody(model, least, model, 0.9),
        "codec": JudgedBody(3.0, 2.9, 3.1, 0.5),
        "junk": JudgedBody(1.0, 0.9, 1.1, separation),
    }


def test_judges_place_the_model_between_junk_and_real_speech():
    assert judge_judges({("mos", "mos"): judged(2.2, 2.0)}).grade is Grade.PASSED
    assert "mos 60 %" in judge_judges({("mos", "mos"): judged(2.2, 2.0)}).sentence
    assert judge_judges({("mos", "mos"): judged(2.2, 1.5)}).grade is Grade.WEAK
    assert judge_judges({("mos", "mos"): judged(1.1, 0.9)}).grade is Grade.FAILED


def test_a_judge_who_cannot_tell_junk_from_speech_is_not_asked():
    blind, seeing = judged(3.0, 2.9, separation=0.6), judged(1.1, 0.9)
    assert judge_judges({("blind", "mos"): blind}) is None
    assert judge_judges({("blind", "mos"): blind, ("seeing", "mos"): seeing}).grade is Grade.FAILED
    assert len(judge(GOOD, GATE, {("blind", "mos"): blind}).judgements) == 5
    assert judge(GOOD, GATE, {("seeing", "mos"): seeing}).stamp == "Failed"
