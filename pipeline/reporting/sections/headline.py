"""The verdict: what every piece of evidence says, and the headline numbers beside their references."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.reporting.data import ReportData
from pipeline.reporting.formatting import bounds, number, percent
from pipeline.reporting.pairs import TASKS, accuracy
from pipeline.reporting.sections.section import Section, render_template
from pipeline.reporting.verdict import Verdict, judge
from pipeline.reporting.verdict.likelihood import is_certain
from pipeline.reporting.verdict.listeners import middle, places
from pipeline.reporting.verdict.sound import accepted_flatness
from pipeline.statistics.interval import Interval


@dataclass(frozen=True)
class Gauge:
    """A value among its references on one axis; positions are percentages from the left.

    `band` is what is accepted, and `interval` what the value may be: beginning and width of each.
    """

    value: float
    marks: tuple[tuple[float, str], ...]
    band: tuple[float, float] | None = None
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Tile:
    """One big figure: what it is, its value and bounds, what to hold it against, and which direction is good."""

    label: str
    value: str
    unit: str
    bounds: str
    references: tuple[tuple[str, str], ...]
    meaning: str
    gauge: Gauge | None = None


def gauge(
    value: Interval, marks: Mapping[str, float], *, logarithmic: bool, band: tuple[float, float] | None = None
) -> Gauge | None:
    """Lay a value and its references out on one axis, with room at both ends; None when there is nothing to compare."""

    def usable(x: float) -> bool:
        return math.isfinite(x) and (x > 0 or not logarithmic)

    def scaled(x: float) -> float:
        return math.log(x) if logarithmic else x

    marks = {label: mark for label, mark in marks.items() if usable(mark)}
    if not usable(value.value) or not marks:
        return None
    ends = (value.low, value.high) if usable(value.low) and usable(value.high) else None
    if band is not None and not all(usable(edge) for edge in band):
        band = None
    placed = [scaled(x) for x in (value.value, *marks.values(), *(band or ()), *(ends or ()))]
    low, width = min(placed), max(max(placed) - min(placed), 1e-9)

    def position(x: float) -> float:
        return round(4 + 92 * (scaled(x) - low) / width, 2)

    def stretch(edges: tuple[float, float] | None) -> tuple[float, float] | None:
        return (position(edges[0]), round(position(edges[1]) - position(edges[0]), 2)) if edges else None

    marked = tuple((position(mark), label) for label, mark in marks.items())
    return Gauge(position(value.value), marked, stretch(band), stretch(ends))


def headline(report: ReportData) -> Section:
    """Say how good the weakest evidence is, what all of it is, and show the numbers beside their references."""
    context = {"verdict": report_verdict(report), "tiles": tiles(report)}
    return Section("Verdict", render_template("headline.html.jinja", context), " ".join(report.foreign.values()))


def report_verdict(report: ReportData) -> Verdict:
    """What the evaluation's numbers come to, under the configured limits."""
    return judge(report.metrics, _gate(report), report.judged.bodies)


def tiles(report: ReportData) -> list[Tile]:
    """The headline numbers, the strongest evidence first; those that nobody was there to judge are left out."""
    found = (_pairs(report), _judges(report), _frechet(report), _loss(report), _flatness(report))
    return [tile for tile in found if tile is not None]


def accepted_range(report: ReportData) -> tuple[float, float] | None:
    """The range of median flatness that the gate accepts, or None when its limits are not known."""
    return accepted_flatness(report.metrics.get("audio/flatness_reference", math.nan), _gate(report))


def _gate(report: ReportData) -> Mapping[str, Any]:
    return (report.configuration.get("evaluate") or {}).get("flatness_gate") or {}


def _measured(report: ReportData, name: str) -> Interval:
    keys = (name, f"{name}/low", f"{name}/high")
    return Interval(*(report.metrics.get(key, math.nan) for key in keys))


def _bounds(interval: Interval, digits: int = 3) -> str:
    return bounds(interval.low, interval.high, lambda bound: number(bound, digits))


def _listed(marks: Mapping[str, float], digits: int = 3) -> tuple[tuple[str, str], ...]:
    return tuple((label, number(mark, digits)) for label, mark in marks.items() if not math.isnan(mark))


def _pairs(report: ReportData) -> Tile | None:
    asked = {title: found for task, (title, _) in TASKS.items() if (found := accuracy(report.metrics, task))}
    if not asked:
        return None
    return Tile(
        "Minimal pairs",
        f"{sum(map(is_certain, asked.values()))} of {len(asked)}",
        "kinds told",
        "",
        tuple((title, _percentage(found)) for title, found in asked.items()),
        "True speech against the same put together wrongly, chance is 50 %: told where the whole interval lies above "
        "chance and above what a bigram reaches.",
    )


def _percentage(found: Mapping[str, float]) -> str:
    ends = bounds(100 * found["low"], 100 * found["high"], "{:.0f}".format)
    return f"{percent(found['value'])} ({ends})" if ends else percent(found["value"])


def _judges(report: ReportData) -> Tile | None:
    by_judge = places(report.judged.bodies)
    if not by_judge:
        return None
    place = middle(list(by_judge.values()))
    return Tile(
        "Judges",
        percent(place.value),
        "of the way from junk to speech",
        f"{percent(place.least)} at the least",
        tuple((judge, percent(its.value)) for judge, its in sorted(by_judge.items())),
        "Higher is better: 100 % is real speech through the codec. Trained elsewhere, on other speech.",
    )


def _frechet(report: ReportData) -> Tile:
    value, undecoded, ceiling = (
        _measured(report, f"audio/{key}") for key in ("fd", "fd_undecoded", "fd_undecoded_reference")
    )
    marks = {
        "codec ceiling": report.metrics.get("audio/fd_reference", math.nan),
        "random tokens": report.metrics.get("audio/fd_unigram_random", math.nan),
    }
    references = _listed(marks)
    if not math.isnan(undecoded.value):
        references += (("to undecoded", f"{number(undecoded.value)}, codec {number(ceiling.value)}"),)
    placed = (
        "utterances are too few to place it below the model"
        if marks["codec ceiling"] > value.value
        else "no model that speaks through it comes nearer"
    )
    return Tile(
        "Fréchet distance",
        number(value.value),
        "to decoded speech",
        _bounds(value),
        references,
        f"Lower is better. Codec ceiling: real speech through the codec, {placed}.",
        gauge(value, marks, logarithmic=True),
    )


def _loss(report: ReportData) -> Tile:
    value = _measured(report, "eval/loss")
    marks = {name: report.metrics.get(f"eval/loss_{name}", math.nan) for name in ("bigram", "unigram", "uniform")}
    rate = {"bits per second": report.metrics.get("eval/bits_per_second", math.nan)}
    perplexity = report.metrics.get("eval/perplexity", math.nan)
    meaning = "Lower is better; below the bigram, the model has learned more than pairs of tokens."
    if not math.isnan(perplexity):
        meaning = f"Lower is better. Perplexity {number(perplexity)}: as unsure as between that many equal choices."
    return Tile(
        "Test loss",
        number(value.value, 4),
        "nats per token",
        _bounds(value, 4),
        _listed(marks, 4) + _listed(rate),
        meaning,
        gauge(value, marks, logarithmic=False),
    )


def _flatness(report: ReportData) -> Tile:
    value = _measured(report, "audio/flatness")
    reference = report.metrics.get("audio/flatness_reference", math.nan)
    controls = {name: report.comparison.get(name, {}).get("flatness", math.nan) for name in ("tone", "noise")}
    marks = {"real speech": reference, **controls}
    # A tone lies many decades down and would squeeze everything else together.
    drawn = {**marks, "tone": max(controls["tone"], min(value.value, 1e-3))}
    return Tile(
        "Spectral flatness",
        number(value.value),
        "median",
        _bounds(value),
        _listed(marks),
        "Close to real speech is good: towards 0 it is a tone, towards 1 it is noise. The shaded range passes.",
        gauge(value, drawn, logarithmic=True, band=accepted_range(report)),
    )
