"""What the model knows of speech, asked without a judge."""

import math
from collections.abc import Mapping

from pipeline.reporting.data import ReportData
from pipeline.reporting.figures.content import accuracy_bars, loss_by_speaker, loss_over_time, reliability_curve
from pipeline.reporting.formatting import as_mapping, number
from pipeline.reporting.pairs import TASKS, accuracy, pairs_sentence
from pipeline.reporting.sections.section import Section, absent, render_template

MOST_SPEAKERS = 12


def content(report: ReportData) -> Section:
    """Show accuracies on minimal pairs beside chance, the loss over time, calibration, and what drafts are worth."""
    title = "Content"
    accuracies = {task: found for task in TASKS if (found := accuracy(report.metrics, task))}
    skipped = as_mapping(report.minimal_pairs.get("skipped"))
    figures = _figures(report, {TASKS[task][0]: found for task, found in accuracies.items()})
    if not accuracies and not skipped and not figures:
        return absent(title, "The evaluation asked for no minimal pairs.")
    context = {
        "tasks": [(*TASKS[task], found, pairs_sentence(found)) for task, found in accuracies.items()],
        "skipped": {TASKS.get(task, (task, ""))[0]: reason for task, reason in skipped.items()},
        "figures": figures,
        "ahead": _ahead(report.metrics),
    }
    return Section(title, render_template("content.html.jinja", context))


def _figures(report: ReportData, accuracies: Mapping[str, Mapping[str, float]]) -> list[dict[str, object]]:
    figures: list[dict[str, object]] = []
    if accuracies:
        caption = (
            "Held-out speech against the same speech put together wrongly: how often is the true one more likely to "
            "the model? Joins themselves are not scored. Diamonds are what counting pairs of tokens reaches."
        )
        figures.append({"title": "Minimal pairs", "figure": accuracy_bars(accuracies), "caption": caption})
    if report.loss_by_position:
        caption = (
            "A model that makes use of what it has heard loses less later on. Lines are 95 % intervals over utterances."
        )
        figure = loss_over_time(report.loss_by_position)
        figures.append({"title": "Loss over time", "figure": figure, "caption": caption})
    if len(report.loss_by_speaker) > 1:
        shown = dict(list(report.loss_by_speaker.items())[:MOST_SPEAKERS])
        which = (
            f"The {len(shown)} hardest of {len(report.loss_by_speaker)} speakers"
            if len(shown) < len(report.loss_by_speaker)
            else "All speakers of the test split, the hardest first"
        )
        figure = loss_by_speaker(shown)
        figures.append({"title": "Loss by speaker", "figure": figure, "caption": f"{which}. Lines are 95 % intervals."})
    if report.calibration:
        error = report.metrics.get("eval/calibration/ece", math.nan)
        excess = report.metrics.get("eval/calibration/overconfidence", math.nan)
        which = "surer than it is right" if excess > 0 else "less sure than it is right"
        caption = (
            "On the dashed line the model is right as often as it is sure. Calibration error "
            f"{number(error, 2)}; on average it is {which}, by {number(abs(excess), 2)}."
        )
        figure = reliability_curve(report.calibration)
        figures.append({"title": "Calibration", "figure": figure, "caption": caption})
    return figures


def _ahead(metrics: Mapping[str, float]) -> list[dict[str, float]]:
    """Loss and acceptance of every depth of multi-token prediction."""
    rows: list[dict[str, float]] = []
    while f"eval/mtp/loss_{(depth := len(rows) + 1)}" in metrics:
        row = {"depth": float(depth)}
        for name, measure in (("loss", "loss"), ("kept", "acceptance")):
            for bound in ("", "/low", "/high"):
                row[name + bound.replace("/", "_")] = metrics.get(f"eval/mtp/{measure}_{depth}{bound}", math.nan)
        rows.append(row)
    return rows
