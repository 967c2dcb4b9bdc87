import math
from dataclasses import replace

import pytest

from pipeline.plumbing.files import write_csv, write_json
from pipeline.reporting.data import ReportData, ReportPaths, collect
from pipeline.reporting.pairs import accuracy, pairs_sentence
from pipeline.reporting.sections.content import content

PAIRS = {
    "eval/pairs/speaker": 0.95, "eval/pairs/speaker/low": 0.87, "eval/pairs/speaker/high": 0.98,
    "eval/pairs/speaker/bigram": 0.5,
    "eval/pairs/words": 0.53, "eval/pairs/words/low": 0.41, "eval/pairs/words/high": 0.65,
    "eval/pairs/words/bigram": 0.5625,
}  # fmt: skip
AHEAD = {
    "eval/mtp/loss_1": 3.3,
    "eval/mtp/loss_1/low": 3.2,
    "eval/mtp/loss_1/high": 3.4,
    "eval/mtp/acceptance_1": 0.788,
}


def test_accuracies_stand_beside_chance_their_intervals_and_the_bigram() -> None:
    html = content(ReportData(metrics=PAIRS)).html
    assert 'aria-label="Accuracy on minimal pairs, chance 50 %: Speaker 95 %, Words 53 %"' in html
    assert "87 to 98 %" in html
    assert "<td>56 %</td>" in html
    assert "The model can tell." in html
    assert "No telling from chance." in html


def test_a_figure_of_few_utterances_has_no_interval() -> None:
    html = content(ReportData(metrics={"eval/pairs/speaker": 0.4, "eval/pairs/speaker/bigram": 0.5, **AHEAD})).html
    assert "Too few utterances to tell." in html
    assert "– to –" not in html


@pytest.mark.parametrize(
    ("low", "high", "bigram", "says"),
    [
        (0.6, 0.9, 0.5, "The model can tell."),
        (0.6, 0.9, 0.8, "The model can tell, but so can a bigram."),
        (0.4, 0.6, 0.5, "No telling from chance."),
        (0.1, 0.4, 0.5, "The model prefers what is wrong."),
        (math.nan, math.nan, 0.5, "Too few utterances to tell."),
    ],
)
def test_only_an_interval_without_chance_says_anything(low: float, high: float, bigram: float, says: str) -> None:
    assert pairs_sentence({"value": 0.9, "low": low, "high": high, "bigram": bigram}) == says


def test_what_was_not_asked_is_named_with_its_reason() -> None:
    report = ReportData(metrics={}, minimal_pairs={"skipped": {"speaker": "there is <one> speaker"}})
    assert "Not asked: speaker, because there is &lt;one&gt; speaker." in content(report).html


def test_an_evaluation_without_any_of_it_says_so() -> None:
    assert 'class="absent"' in content(ReportData(metrics={"eval/loss": 3.0})).html
    assert accuracy({"eval/loss": 3.0}, "speaker") == {}


def test_loss_over_time_calibration_and_drafts_are_shown(paths: ReportPaths) -> None:
    stretches = [{"seconds_from": 0.0, "seconds_to": 0.125, "n_tokens": 9, "nats": 3.9, "low": 3.7, "high": 4.1}]
    bins = [{"confidence": 0.3, "accuracy": 0.35, "low": 0.3, "high": 0.4, "n_tokens": 50}]
    write_csv(paths.evaluate / "loss_by_position.csv", stretches)
    write_csv(paths.evaluate / "calibration.csv", bins)
    write_json(paths.evaluate / "minimal_pairs.json", {"skipped": {}})
    found = collect(paths)
    errors = {"eval/calibration/ece": 0.012, "eval/calibration/overconfidence": -0.013}
    html = content(replace(found, metrics={**found.metrics, **PAIRS, **AHEAD, **errors})).html
    assert ">0–0.125<" in html
    assert "Calibration error 0.012; on average it is less sure than it is right, by 0.013." in html
    assert "78.8 %" in html
    assert html.count("<svg") == 3
