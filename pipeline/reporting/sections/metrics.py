"""The numbers in full, beside references and controls."""

import math
from collections.abc import Mapping
from functools import partial

from pipeline.reporting.data import ReportData
from pipeline.reporting.figures.comparison import dot_plot, loss_bars
from pipeline.reporting.formatting import bounds, fixed, number, short
from pipeline.reporting.sections.headline import accepted_range
from pipeline.reporting.sections.section import Section, absent, render_template

GROUPS = {"reference": "Real speech", "model": "The model", "control": "Controls"}

# Signal: the name a reader sees, its group, and what it is.
SIGNALS = {
    "real": ("Real", "reference", "held-out recordings, untouched"),
    "codec": ("Codec ceiling", "reference", "through the codec and back"),
    "generated": ("All generated", "model", "both kinds below"),
    "continuation": ("Continuation", "model", "after a real prompt"),
    "unprompted": ("Unprompted", "model", "from the first token alone"),
    "unigram_random": ("Unigram tokens", "control", "drawn by frequency, decoded"),
    "uniform_random": ("Uniform tokens", "control", "drawn evenly, decoded"),
    "tone": ("Tone", "control", "a steady sine"),
    "noise": ("White noise", "control", "every frequency alike"),
}

# Column of the comparison: heading, in which direction it is good, and decimals (None: significant digits, for
# measures that span decades).
MEASURES: dict[str, tuple[str, str, int | None]] = {
    "flatness": ("Flatness", "near real", None),
    "flatness_db": ("Flatness, dB", "near real", 2),
    "fd": ("Fréchet distance", "lower", None),
    "fd_undecoded": ("to undecoded", "lower", None),
    "mel_flux_db": ("Mel flux, dB", "near real", 2),
    "modulation_depth": ("Modulation depth", "near real", 3),
}


def metrics(report: ReportData) -> Section:
    """Compare every signal on every measure, split the loss by codebook, and list all flat metrics."""
    title = "Measurements"
    if not report.metrics and not report.comparison and not report.loss_by_codebook:
        return absent(title, "The evaluation wrote no numbers.")
    measures = {key: text for key, text in MEASURES.items() if _measured(report.comparison, key)}
    context = {
        "groups": _grouped(report.comparison, measures),
        "measures": measures,
        "figures": _dot_plots(report),
        "loss_by_codebook": loss_bars(report.loss_by_codebook) if report.loss_by_codebook else None,
        "metrics": _with_bounds(report.metrics),
    }
    return Section(title, render_template("metrics.html.jinja", context))


def _with_bounds(metrics: Mapping[str, float]) -> list[tuple[str, float, str]]:
    """Every metric by its name, with the bounds of its interval where it has one."""
    ends = {f"{name}/{end}" for name in metrics for end in ("low", "high")} & metrics.keys()
    rows = []
    for name in sorted(metrics.keys() - ends):
        low, high = (metrics.get(f"{name}/{end}", math.nan) for end in ("low", "high"))
        rows.append((name, metrics[name], bounds(low, high, partial(short, digits=4))))
    return rows


def _cell(values: Mapping[str, float], measure: str, decimals: int | None) -> tuple[str, str]:
    """A measure of a signal, and the bounds of its interval where it has one."""
    form = number if decimals is None else partial(fixed, decimals=decimals)
    return form(values.get(measure)), bounds(*_bounds(values, measure), form)


def _bounds(values: Mapping[str, float], measure: str) -> tuple[float, float]:
    """The interval of a measure; NaN where it has none."""
    return values.get(f"{measure}_low", math.nan), values.get(f"{measure}_high", math.nan)


def _describe(signal: str) -> tuple[str, str, str]:
    return SIGNALS.get(signal, (signal, "control", ""))


def _measured(comparison: Mapping[str, Mapping[str, float]], measure: str) -> bool:
    return any(measure in values for values in comparison.values())


def _grouped(
    comparison: Mapping[str, Mapping[str, float]], measures: Mapping[str, tuple[str, str, int | None]]
) -> list[tuple[str, list[dict[str, object]]]]:
    """Sort signals into references, model and controls, known ones in the order above, others last."""
    order = list(SIGNALS)
    known = sorted(comparison, key=lambda signal: order.index(signal) if signal in SIGNALS else len(order))
    groups = []
    for group, heading in GROUPS.items():
        rows: list[dict[str, object]] = []
        for signal in known:
            label, its_group, meaning = _describe(signal)
            if its_group == group:
                cells = [_cell(comparison[signal], measure, decimals) for measure, (_, _, decimals) in measures.items()]
                rows.append({"label": label, "meaning": meaning, "cells": cells})
        if rows:
            groups.append((heading, rows))
    return groups


def _dot_plots(report: ReportData) -> list[dict[str, object]]:
    """Draw Fréchet distance and flatness side by side: each sees failures that the other is blind to."""
    order = [signal for signal in SIGNALS if signal in report.comparison]
    order += [signal for signal in report.comparison if signal not in SIGNALS]
    groups = {_describe(signal)[0]: _describe(signal)[1] for signal in order}
    plots = (
        (
            "fd",
            "Fréchet distance",
            "Left is better. Sees wrong sounds and wrong movement; specific to this corpus.",
            None,
        ),
        (
            "flatness",
            "Spectral flatness",
            "Inside the shaded range is accepted. Tells tones and noise from speech, but not random tokens.",
            accepted_range(report),
        ),
    )
    figures: list[dict[str, object]] = []
    for key, title, caption, band in plots:
        values = {_describe(signal)[0]: report.comparison[signal].get(key, float("nan")) for signal in order}
        intervals = {_describe(signal)[0]: _bounds(report.comparison[signal], key) for signal in order}
        if any(value > 0 for value in values.values()):
            svg = dot_plot(values, groups, f"dots-{key}", f"{title}, logarithmic scale", band, intervals)
            figures.append({"title": title, "figure": svg, "caption": caption})
    return figures
