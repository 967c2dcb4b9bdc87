"""Quantities over training steps."""

from collections.abc import Mapping

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, MaxNLocator, ScalarFormatter

from pipeline.reporting.data import Curve
from pipeline.reporting.figures.style import HALF, INK, MUTED, SERIES, new_figure, styled, to_svg
from pipeline.reporting.formatting import number

MAX_NAMED = 6


@styled
def training_curves(
    curves: Mapping[str, Curve], name: str, label: str, baselines: Mapping[str, float] | None = None
) -> Markup:
    """Draw curves over training steps, with each baseline as a labelled horizontal line.

    Up to six curves are named in a legend; more (one a layer, say) are told apart by shade, first to last.
    """
    figure = new_figure(HALF, 290)
    axes = figure.add_subplot()
    named = len(curves) <= MAX_NAMED
    colours = SERIES * 2 if named else _shades(len(curves))
    for (key, curve), colour in zip(curves.items(), colours, strict=False):
        sparse = len(curve.steps) <= 24
        axes.plot(
            curve.steps,
            curve.values,
            label=key,
            color=colour,
            marker="o" if sparse else None,
            markersize=4,
            linewidth=1.8 if named else 1.2,
        )
    axes.set(xlabel="step", ylabel=label)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
    axes.yaxis.set_major_formatter(ScalarFormatter(useOffset=False))
    axes.margins(x=0.02)
    _draw_baselines(axes, baselines or {})
    if named and len(curves) > 1:
        figure.legend(loc="outside upper left", ncols=3, borderpad=0.2, columnspacing=1.4)
    return to_svg(figure, name, f"{label} over training steps: {', '.join(curves)}")


def _shades(n: int) -> list[str]:
    """Return `n` colours in an order the eye can follow, all legible on light and on dark paper."""
    return [matplotlib.colors.to_hex(colour) for colour in matplotlib.colormaps["viridis"](np.linspace(0.25, 0.8, n))]


def _draw_baselines(axes: Axes, baselines: Mapping[str, float]) -> None:
    """Draw horizontal lines named at the right, their names moved apart where the lines lie close."""
    if not baselines:
        return
    for value in baselines.values():
        axes.axhline(value, color=MUTED, linewidth=1.0, linestyle=(0, (4, 3)), zorder=1)
    low, high = axes.get_ylim()
    # A line of text is about 14 of the 240 pixels of the axes.
    ordered = sorted(baselines.items(), key=lambda item: item[1])
    heights = spread([value for _, value in ordered], (high - low) * 14 / 240)
    for (key, value), height in zip(ordered, heights, strict=True):
        axes.annotate(
            f"{key} {number(value)}",
            (1.015, height),
            xycoords=("axes fraction", "data"),
            va="center",
            color=INK,
            annotation_clip=False,
        )


def spread(positions: list[float], gap: float) -> list[float]:
    """Move ascending positions apart to at least `gap`, each cluster staying centred where it was."""
    clusters: list[list[float]] = []
    for position in positions:
        clusters.append([position])
        while len(clusters) > 1 and _start(clusters[-1], gap) - _end(clusters[-2], gap) < gap:
            last = clusters.pop()
            clusters[-1] += last
    return [_start(cluster, gap) + i * gap for cluster in clusters for i in range(len(cluster))]


def _start(cluster: list[float], gap: float) -> float:
    return sum(cluster) / len(cluster) - gap * (len(cluster) - 1) / 2


def _end(cluster: list[float], gap: float) -> float:
    return _start(cluster, gap) + gap * (len(cluster) - 1)
