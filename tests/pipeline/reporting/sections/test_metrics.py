from dataclasses import replace

import pytest

from pipeline.reporting.data import ReportData, collect
from pipeline.reporting.sections.metrics import metrics


@pytest.fixture(scope="module")
def report(shared_paths, configuration) -> ReportData:
    return collect(shared_paths, configuration, n_examples=0)


def test_figures_stand_with_their_intervals(report) -> None:
    measured = {**report.comparison["generated"], "fd": 48.1, "fd_low": 35.7, "fd_high": 63.3}
    comparison = {**report.comparison, "generated": measured}
    values = {**report.metrics, "eval/loss": 3.3685, "eval/loss/low": 3.303, "eval/loss/high": 3.435}
    html = metrics(replace(report, comparison=comparison, metrics=values)).html
    assert "48.1 <small>35.7 to 63.3</small>" in html
    assert "<td>3.3685</td><td><small>3.303 to 3.435</small></td>" in html
    assert "eval/loss/low" not in html


def test_what_has_no_interval_stands_alone(report) -> None:
    plain = {signal: {"fd": 48.1, "fd_low": float("nan")} for signal in report.comparison}
    html = metrics(replace(report, comparison=plain, metrics={"eval/loss": 3.5})).html
    assert "<td>48.1</td>" in html
    assert "<td>3.5</td><td><small></small></td>" in html
