"""The verdict: what the weakest of the headline numbers says, and the numbers themselves beside their references."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.reporting.data import ReportData
from pipeline.reporting.formatting import number
from pipeline.reporting.sections.section import Section, render_template
from pipeline.reporting.verdict import Verdict, judge


@dataclass(frozen=True)
class Gauge:
    """A value among its references on one axis; positions are percentages from the left."""

    value: float
    marks: tuple[tuple[float, str], ...]
    band: tuple[float, float] | None = None


@dataclass(frozen=True)
class Tile:
    """One big figure: what it is, its value, what to hold it against, and which direction is good."""

    label: str
    value: str
    unit: str
    references: tuple[tuple[str, str], ...]
    meaning: str
    gauge: Gauge | None


def gauge(
    value: float, marks: Mapping[str, float], *, logarithmic: bool, band: tuple[float, float] | None = None
) -> Gauge | None:
    """Lay a value and its references out on one axis, with room at both ends; None when there is nothing to compare."""

    def usable(x: float) -> bool:
        return math.isfinite(x) and (x > 0 or not logarithmic)

    def scaled(x: float) -> float:
        return math.log(x) if logarithmic else x

    marks = {label: mark for label, mark in marks.items() if usable(mark)}
    if not usable(value) or not marks:
        return None
    if band is not None and not all(usable(edge) for edge in band):
        band = None
    placed = [scaled(x) for x in (value, *marks.values(), *(band or ()))]
    low, width = min(placed), max(max(placed) - min(placed), 1e-9)

    def position(x: float) -> float:
        return round(4 + 92 * (scaled(x) - low) / width, 2)

    return Gauge(
        value=position(value),
        marks=tuple((position(mark), label) for label, mark in marks.items()),
        band=(position(band[0]), round(position(band[1]) - position(band[0]), 2)) if band else None,
    )


def headline(report: ReportData) -> Section:
    """Say how good the weakest of loss, distance and flatness is, and show all of them beside their references."""
    context = {
        "verdict": report_verdict(report),
        "tiles": [_loss(report), _frechet(report), _flatness(report), _bits(report)],
    }
    return Section("Verdict", render_template("headline.html.jinja", context), " ".join(report.foreign.values()))


def report_verdict(report: ReportData) -> Verdict:
    """What the evaluation's numbers come to, under the configured limits."""
    evaluation = report.configuration.get("evaluate") or {}
    return judge(report.metrics, evaluation.get("flatness_gate") or {})


def _listed(marks: Mapping[str, float], digits: int = 3) -> tuple[tuple[str, str], ...]:
    return tuple((label, number(mark, digits)) for label, mark in marks.items() if not math.isnan(mark))


def _loss(report: ReportData) -> Tile:
    value = report.metrics.get("eval/loss", math.nan)
    marks = {name: report.metrics.get(f"eval/loss_{name}", math.nan) for name in ("bigram", "unigram", "uniform")}
    perplexity = report.metrics.get("eval/perplexity", math.nan)
    meaning = "Lower is better; below the bigram, the model has learned more than pairs of tokens."
    if not math.isnan(perplexity):
        meaning = f"Lower is better. Perplexity {number(perplexity)}: as unsure as between that many equal choices."
    return Tile("Test loss", number(value, 4), "nats per token", _listed(marks, 4), meaning, _linear(value, marks))


def _linear(value: float, marks: Mapping[str, float]) -> Gauge | None:
    return gauge(value, marks, logarithmic=False)


def _flatness(report: ReportData) -> Tile:
    value = report.metrics.get("audio/flatness", math.nan)
    reference = report.metrics.get("audio/flatness_reference", math.nan)
    controls = {name: report.comparison.get(name, {}).get("flatness", math.nan) for name in ("tone", "noise")}
    marks = {"real speech": reference, **controls}
    band = accepted_flatness(report)
    return Tile(
        "Spectral flatness",
        number(value),
        "median",
        _listed(marks),
        "Close to real speech is good: towards 0 it is a tone, towards 1 it is noise. The shaded range passes.",
        # A tone lies many decades down and would squeeze everything else together.
        gauge(value, {**marks, "tone": max(controls["tone"], min(value, 1e-3))}, logarithmic=True, band=band),
    )


def accepted_flatness(report: ReportData) -> tuple[float, float] | None:
    """Return the range of median flatness that the gate accepts, or None when its limits are not known."""
    gate = (report.configuration.get("evaluate") or {}).get("flatness_gate") or {}
    reference = report.metrics.get("audio/flatness_reference", math.nan)
    if math.isnan(reference) or gate.get("min_ratio") is None or gate.get("max_ratio") is None:
        return None
    low, high = gate["min_ratio"] * reference, gate["max_ratio"] * reference
    return max(low, gate.get("min_flatness") or 0.0), min(high, gate.get("max_flatness") or 1.0)


def _frechet(report: ReportData) -> Tile:
    value, undecoded, ceiling = (
        report.metrics.get(f"audio/{key}", math.nan) for key in ("fd", "fd_undecoded", "fd_undecoded_reference")
    )
    marks = {
        "real, through the codec": report.metrics.get("audio/fd_reference", math.nan),
        "random tokens": report.metrics.get("audio/fd_unigram_random", math.nan),
    }
    references = _listed(marks)
    if not math.isnan(undecoded):
        references += (("to undecoded", f"{number(undecoded)}, codec {number(ceiling)}"),)
    return Tile(
        "Fréchet distance",
        number(value),
        "to decoded speech",
        references,
        "Lower is better: how far the spectra and their movement lie from those of real speech.",
        gauge(value, marks, logarithmic=True),
    )


def _bits(report: ReportData) -> Tile:
    value = report.metrics.get("eval/bits_per_second", math.nan)
    loss, uniform = (report.metrics.get(key, math.nan) for key in ("eval/loss", "eval/loss_uniform"))
    bigram = report.metrics.get("eval/loss_bigram", math.nan)
    per_nat = value / loss if loss > 0 else math.nan
    marks = {"bigram": bigram * per_nat, "uniform": uniform * per_nat}
    return Tile(
        "Information rate",
        number(value),
        "bits per second",
        _listed(marks),
        "Lower is better: what the model needs to write down one second of speech in the codec's tokens.",
        gauge(value, marks, logarithmic=False),
    )
