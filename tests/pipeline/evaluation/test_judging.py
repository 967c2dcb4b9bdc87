from collections.abc import Mapping

import numpy as np
import pytest

from pipeline.evaluation.clip import Clip
from pipeline.evaluation.hearing import hear
from pipeline.evaluation.judging import body_rows, describe, doubts, heard_rows, judge_metrics, judgement_rows
from pipeline.evaluation.specimens import Exhibit, exhibits
from pipeline.judges.judge import Judgement, Measure, Specimen
from pipeline.judges.registry import Panel
from pipeline.preparation.origins import Origin

RATE = 8000
ORIGINS = [Origin("a.wav", "ann", "one"), Origin("b.wav", "bob", "two"), Origin("c.wav", "ann", "")]


class Meter:
    """Says how loud a sound is."""

    measures: Mapping[str, Measure] = {"level": Measure("Level", "higher", "how loud it is")}
    origin = "nobody"

    def __init__(self, compares: bool = False) -> None:
        self.compares = compares

    def judge(self, specimen: Specimen) -> Judgement:
        return Judgement({"level": float(np.mean(specimen.audio**2))}, heard="something")


def clip(kind: str, number: int, value: float = 0.1, **known: int) -> Clip:
    generator = np.random.default_rng(number)
    return Clip(kind, number, (value * generator.standard_normal(2 * RATE)).astype(np.float32), **known)


@pytest.fixture
def given() -> list[Exhibit]:
    clips = [clip(kind, n, document=n) for kind in ("real", "codec") for n in range(3)]
    clips += [clip("continuation", n, document=n, n_given=RATE // 2) for n in range(3)]
    clips += [
        clip(kind, n, 0.01) for kind in ("unprompted", "unigram_random", "uniform_random", "tone") for n in range(3)
    ]
    return exhibits(clips, ORIGINS, RATE, 2, seed=0)


def of(given: list[Exhibit], kind: str) -> list[Exhibit]:
    return [exhibit for exhibit in given if exhibit.kind == kind]


def test_speech_stands_among_real_speech_and_controls(given: list[Exhibit]) -> None:
    counts = {exhibit.kind: len(of(given, exhibit.kind)) for exhibit in given}
    assert counts == {
        "real": 2,
        "codec": 2,
        "continuation": 2,
        "unprompted": 2,
        "unigram_random": 2,
        "tone": 2,
        "shuffled": 2,
        "silence": 1,
        "other_speaker": 2,
    }
    assert all(exhibit.specimen.audio.dtype == np.float32 for exhibit in given)


def test_judges_hear_sixteen_kilohertz_and_not_what_was_given(given: list[Exhibit]) -> None:
    real, continuation = of(given, "codec")[0].specimen, of(given, "continuation")[0].specimen
    assert len(real.audio) == 4 * RATE
    assert len(continuation.audio) == 3 * RATE
    assert continuation.prompt is not None
    assert len(continuation.prompt) == RATE
    assert real.continuation is not None
    assert np.array_equal(real.continuation, real.audio[RATE:])


def test_junk_is_taken_for_the_utterance_of_its_number(given: list[Exhibit]) -> None:
    assert [exhibit.specimen.transcript for exhibit in of(given, "tone")] == ["one", "two"]
    assert [exhibit.specimen.transcript for exhibit in of(given, "continuation")] == ["", ""]
    for number in range(2):
        prompt = of(given, "codec")[number].specimen.prompt
        assert prompt is not None
        assert np.array_equal(of(given, "unigram_random")[number].specimen.prompt, prompt)


def test_shuffled_speech_is_the_same_moments_in_another_order(given: list[Exhibit]) -> None:
    real, shuffled = of(given, "codec")[0].specimen.audio, of(given, "shuffled")[0].specimen.audio
    assert not np.array_equal(real, shuffled)
    assert np.array_equal(np.sort(real), np.sort(shuffled))


def test_another_speaker_is_heard_by_those_alone_who_compare(given: list[Exhibit]) -> None:
    asked = {
        name: [exhibit.kind for _, exhibit, _ in hear(Panel({name: Meter(name == "compares")}), given)[1]]
        for name in ("alone", "compares")
    }
    assert "other_speaker" not in asked["alone"]
    assert "unprompted" not in asked["compares"]
    assert "other_speaker" in asked["compares"]
    for exhibit in of(given, "other_speaker"):
        assert exhibit.document is not None
        assert ORIGINS[exhibit.document].speaker != ORIGINS[exhibit.number].speaker


def test_a_judge_that_tells_speech_from_junk_is_told_from_one_that_does_not(given: list[Exhibit]) -> None:
    judged = hear(Panel({"meter": Meter()}), given)[1]
    judgements = [row for name, exhibit, judgement in judged for row in judgement_rows(name, exhibit, judgement)]
    rows = {row["signal"]: row for row in body_rows(judgements, {"meter": Meter.measures})}
    assert rows["tone"]["separation"] == 1
    assert 0.3 < rows["shuffled"]["separation"] < 0.7
    assert rows["generated"]["n"] == 4
    assert rows["junk"]["n"] == 7
    assert doubts(list(rows.values())) == ["The judge meter cannot tell shuffled from real speech by level here."]
    metrics = judge_metrics(list(rows.values()))
    assert metrics["judge/meter/level"] == pytest.approx(rows["generated"]["value"])
    assert rows["junk"]["low"] <= rows["junk"]["value"] <= rows["junk"]["high"]
    # Four clips are too few to say between what their mean is known to lie.
    assert "judge/meter/level/low" not in metrics
    assert metrics["judge/meter/level_reference"] == pytest.approx(0.01, rel=0.1)
    assert metrics["judge/meter/level_separation"] == rows["junk"]["separation"] < 1


def test_what_was_heard_stands_beside_what_was_said(given: list[Exhibit]) -> None:
    rows = heard_rows(hear(Panel({"meter": Meter()}), given)[1])
    assert [row["said"] for row in rows if row["signal"] == "codec"] == ["one", "two"]
    assert {row["said"] for row in rows if row["signal"] in ("tone", "continuation")} == {""}


class Frail(Meter):
    """Has not thought of silence."""

    def judge(self, specimen: Specimen) -> Judgement:
        if not specimen.audio.any():
            raise ZeroDivisionError("nothing\nto hear")
        return super().judge(specimen)


def test_a_judge_that_breaks_down_is_left_out_and_the_others_go_on(
    given: list[Exhibit], caplog: pytest.LogCaptureFixture
) -> None:
    panel, judged = hear(Panel({"frail": Frail(), "meter": Meter()}, {"other": "not installed"}), given)
    reason = "it failed on the sound silence 0 (ZeroDivisionError: nothing to hear)."
    assert panel.skipped == {"other": "not installed", "frail": reason}
    assert set(panel.judges) == {name for name, _, _ in judged} == {"meter"}
    assert f"The judge frail is left out: {reason}" in caplog.text


def test_what_is_no_number_is_no_figure(given: list[Exhibit]) -> None:
    assert judgement_rows("meter", given[0], Judgement({"level": float("nan"), "other": 1.0}))[0]["value"] == 1.0


def test_who_judged_is_written_down_with_the_rate_that_was_heard() -> None:
    document = describe(Panel({"meter": Meter()}, {"other": "not installed"}), RATE)
    assert (document["sample_rate"], document["expected_sample_rate"]) == (8000, 16000)
    assert document["judges"]["meter"]["measures"]["level"]["better"] == "higher"
    assert document["skipped"] == {"other": "not installed"}
