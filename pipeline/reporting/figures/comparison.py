"""The model beside its references: loss by codebook, and signals on one axis."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup
from matplotlib.ticker import MaxNLocator

from pipeline.reporting.figures.style import (
    BAND,
    HALF,
    INK,
    MODEL,
    REAL,
    SECOND,
    SHADES,
    WIDE,
    new_figure,
    styled,
    to_svg,
)
from pipeline.reporting.formatting import number, power_of_ten

GROUP_COLOURS = {"reference": REAL, "model": MODEL, "control": SECOND}


@styled
def loss_bars(rows: Sequence[Mapping[str, float]]) -> Markup:
    """Draw the loss at each codebook position for the model (solid, with its interval) and the baselines (pale)."""
    colours = dict(zip(("model", "bigram", "unigram", "uniform"), (MODEL, *SHADES), strict=True))
    series = [name for name in colours if any(np.isfinite(row.get(name, np.nan)) for row in rows)]
    figure = new_figure(WIDE, 280)
    axes = figure.add_subplot()
    bar_width = 0.82 / max(1, len(series))
    for i, name in enumerate(series):
        heights = np.array([row.get(name, np.nan) for row in rows])
        left = np.arange(len(rows)) + (i - (len(series) - 1) / 2) * bar_width
        axes.bar(left, heights, 0.9 * bar_width, label=name, color=colours[name])
        lows, highs = (np.array([row.get(f"{name}_{end}", np.nan) for row in rows]) for end in ("low", "high"))
        axes.vlines(left, lows, highs, color=INK, linewidth=1)
        if len(rows) <= 8:
            for x, height in zip(left, heights, strict=True):
                if np.isfinite(height):
                    axes.text(x, height, number(height), ha="center", va="bottom", fontsize=10, color=INK)
    positions = [row.get("codebook", i) for i, row in enumerate(rows)]
    axes.set_xticks(range(len(rows)), [f"codebook {position:g}" for position in positions])
    axes.tick_params(axis="x", length=0)
    axes.set_ylabel("nats per token")
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.margins(x=0.01, y=0.1)
    figure.legend(loc="outside upper left", ncols=4, borderpad=0.2, columnspacing=1.4)
    return to_svg(figure, "loss-by-codebook", "Loss by codebook position, model and baselines")


@styled
def dot_plot(
    values: Mapping[str, float],
    groups: Mapping[str, str],
    name: str,
    label: str,
    band: tuple[float, float] | None = None,
    intervals: Mapping[str, tuple[float, float]] | None = None,
) -> Markup:
    """Draw one dot a signal on a logarithmic axis, with its value and interval.

    Args:
        values: by signal; those that are not positive cannot stand on the axis and are left out.
        groups: for each signal whether it is a reference, the model's, or a control.
        name: of the figure.
        label: of the axis.
        band: what is accepted, shaded.
        intervals: (low, high) of some signals.
    """
    shown = {signal: value for signal, value in values.items() if np.isfinite(value) and value > 0}
    figure = new_figure(HALF, 70 + 25 * max(1, len(shown)))
    axes = figure.add_subplot()
    axes.set_xscale("log")
    axes.minorticks_off()
    if band is not None:
        axes.axvspan(*band, color=BAND, linewidth=0)
    for row, (signal, value) in enumerate(shown.items()):
        colour = GROUP_COLOURS[groups.get(signal, "control")]
        low, high = (intervals or {}).get(signal, (value, value))
        axes.hlines(row, low, high, color=colour, linewidth=2)
        axes.plot([value], [row], "o", color=colour, markersize=8)
        end = max(value, high) if np.isfinite(high) else value
        axes.annotate(number(value), (end, row), (9, 0), textcoords="offset points", va="center", fontsize=10.5)
    axes.set_yticks(range(len(shown)), list(shown), color=INK)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.grid(axis="both")
    axes.spines["left"].set_visible(False)
    if shown:
        low, high = min(shown.values()), max(shown.values())
        room = max(high / low, 10.0)
        axes.set_xlim(low / room**0.06, high * room**0.2)
        decades = _decades(low, high)
        axes.set_xticks(decades, [power_of_ten(decade) for decade in decades])
    axes.set_xlabel(label)
    return to_svg(figure, name, f"{label} of {len(shown)} signals")


def _decades(low: float, high: float) -> list[float]:
    """Return at most seven powers of ten for an axis from `low` to `high`."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    every = math.ceil((last - first + 1) / 7)
    return [10.0**exponent for exponent in range(last, first - 1, -every)]
