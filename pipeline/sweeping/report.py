"""The page of a sweep: one HTML document that opens anywhere, without a network."""

import logging
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from pipeline.plumbing.files import atomic_write
from pipeline.reporting.figures.sweep import Axis, importance_bars, learning_curves, parallel_coordinates
from pipeline.reporting.formatting import bounds, number
from pipeline.reporting.page import render_page
from pipeline.reporting.sections.section import Section, absent, render_template
from pipeline.sweeping.configuration import SweepReportConfig
from pipeline.sweeping.grouping import Group, best_job, grouped
from pipeline.sweeping.importance import importance
from pipeline.sweeping.results import CURVE, SweepResults, find_results
from pipeline.sweeping.settings import Setting, settings_of

log = logging.getLogger(__name__)

PAGE, FOLDER = "index.html", "report"
MOST_ROWS = 20
DIGITS = 4


def report_sweep(config: SweepReportConfig, values: Mapping[str, Any]) -> Path:
    """Write the page of a sweep, and return its path."""
    results = find_results(config.parent[0], values)
    usual = results.folder / FOLDER if results.folder else Path(values["paths"]["outputs"], "sweep_report")
    page = Path(config.page) / PAGE if config.page else usual / PAGE
    with atomic_write(page) as temporary:
        temporary.write_text(sweep_page(results), encoding="utf-8")
    log.info("See %s.", page.resolve().as_uri())
    return page


def sweep_page(results: SweepResults) -> str:
    """The page as HTML."""
    groups = grouped(results.jobs, results.record.sign)
    measured = [group for group in groups if group.jobs]
    failed = sum(bool(job.failure) for job in results.jobs)
    facts = [
        ("Objective", f"{results.record.objective}, {results.record.goal}d"),
        ("Configurations", str(len(groups))),
        ("Jobs", f"{len(results.jobs) - failed} finished, {failed} failed, {_n_open(results)} open"),
    ]
    sections = [_best(results, groups, measured)]
    if len(measured) > 1:
        goodness = _goodness(measured)
        sections += [_settings(results, measured, goodness), _curves(results, measured, goodness)]
    return render_page(f"Sweep {results.name}", facts, sections)


def winning_command(results: SweepResults, group: Group) -> str:
    """The command that trains the best job of a configuration again, on its own."""
    job = best_job(group, results.record.sign)
    overrides = results.record.jobs[job.number] if job.number < len(results.record.jobs) else list(job.overrides)
    return shlex.join(["python", "-m", f"pipeline.{results.record.stage}", *overrides])


def _best(results: SweepResults, groups: Sequence[Group], measured: Sequence[Group]) -> Section:
    failures = [f"{job}: {job.failure}" for job in results.jobs if job.failure]
    if not measured:
        return absent("Best configurations", f"No job has a result. {' '.join(failures)}")
    best = measured[0]
    context = {
        "lead": _lead(results, measured),
        "command": winning_command(results, best) if results.folder else "",
        "winner": best.title,
        "objective": results.record.objective,
        "rows": [_row(results, group) for group in groups[:MOST_ROWS]],
        "caption": "The mean over seeds with Student's interval; a single training has none."
        + (f" The first {MOST_ROWS} of {len(groups)}." if len(groups) > MOST_ROWS else ""),
        "failures": failures,
    }
    return Section("Best configurations", render_template("sweep.html.jinja", context))


def _lead(results: SweepResults, measured: Sequence[Group]) -> str:
    """Which configuration is best, and whether its interval keeps clear of the next one's."""
    best = measured[0]
    name = results.record.objective
    said = f"{best.title} has the best {name}: {number(best.objective.value, DIGITS)}"
    if len(best.jobs) < 2:
        return f"{said}, in a single training. Whether that is luck, further seeds would show (sweep.seeds=3)."
    if len(measured) < 2:
        return f"{said}, as the mean of {len(best.jobs)} seeds."
    after = measured[1]
    first, second = (best, after) if results.record.sign > 0 else (after, best)
    if first.objective.lies_below(second.objective):
        return f"{said}, as the mean of {len(best.jobs)} seeds; its interval keeps clear of the next one's."
    return (
        f"{said}, as the mean of {len(best.jobs)} seeds. Its interval does not keep clear of that of {after.title}: "
        "this sweep cannot tell which of them is better."
    )


def _row(results: SweepResults, group: Group) -> dict[str, str]:
    mean, has_interval = group.objective, len(group.jobs) > 1
    return {
        "title": group.title,
        "value": number(mean.value, DIGITS) if group.jobs else "–",
        "bounds": bounds(mean.low, mean.high, lambda value: number(value, DIGITS)) if has_interval else "–",
        "trainings": _trainings(len(group.jobs), len(group.others)),
        "job": str(best_job(group, results.record.sign).number) if group.jobs else "–",
    }


def _trainings(n_with: int, n_without: int) -> str:
    if not n_without:
        return str(n_with)
    return f"{n_with} and {n_without} without a result" if n_with else f"{n_without} without a result"


def _settings(results: SweepResults, measured: Sequence[Group], goodness: np.ndarray) -> Section:
    settings = settings_of(measured)
    if not settings:
        return absent("Settings", "The configurations differ in no setting that can be drawn.")
    objective = np.array([group.objective.value for group in measured])
    axes = [_axis(setting) for setting in settings]
    low, high = float(objective.min()), float(objective.max())
    ends = [(0.0, number(low, DIGITS)), (1.0, number(high, DIGITS))]
    axes.append(Axis(results.record.objective, (objective - low) / ((high - low) or 1.0), ends))
    found = importance(settings, objective)
    if found.shares:
        bars = {"title": "Importance", "figure": importance_bars(found.shares), "caption": found.method}
        shown = render_template("figures.html.jinja", {"figures": [bars]})
    else:
        shown = Markup('<p class="absent">{}</p>').format(found.method)
    lines = Markup('<figure class="wide"><h3>Configurations</h3>{}<figcaption>{}</figcaption></figure>').format(
        parallel_coordinates(axes, goodness),
        "A line is a configuration, from its settings to its objective at the right. The thick one is the best; of the "
        "others, the paler the better.",
    )
    return Section("Settings", lines + shown)


def _axis(setting: Setting) -> Axis:
    """An axis with a tick at every value, or at both ends of many numbers."""
    ticks = dict(sorted(zip(setting.places.tolist(), setting.values, strict=True)))
    if setting.numbers is not None and len(ticks) > 6:
        ticks = dict([list(ticks.items())[0], list(ticks.items())[-1]])
    return Axis(
        setting.key.rpartition(".")[2], setting.places, [(place, text or "default") for place, text in ticks.items()]
    )


def _curves(results: SweepResults, measured: Sequence[Group], goodness: np.ndarray) -> Section:
    drawn = [
        (results.curves[job.number], rank)
        for group, rank in zip(measured, goodness, strict=True)
        for job in group.jobs
        if job.number in results.curves
    ]
    if not drawn:
        return absent("Curves", "No job has left the course of its validation loss.")
    figure = learning_curves([curve for curve, _ in drawn], np.array([rank for _, rank in drawn]), CURVE)
    caption = "Every job that has a result. The thick curves are those of the best configuration."
    figures = [{"title": "Validation loss", "figure": figure, "caption": caption}]
    return Section("Curves", render_template("figures.html.jinja", {"figures": figures}))


def _goodness(measured: Sequence[Group]) -> np.ndarray:
    """By rank, which a configuration that has diverged cannot stretch."""
    return 1 - np.arange(len(measured)) / max(len(measured) - 1, 1)


def _n_open(results: SweepResults) -> int:
    return max(0, len(results.record.jobs) - len(results.jobs))
