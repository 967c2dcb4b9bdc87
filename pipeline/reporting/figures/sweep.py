"""What a sweep shows: configurations across their settings, which settings matter, and how jobs learned."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.ticker import MaxNLocator

from pipeline.reporting.figures.style import HALF, INK, MODEL, MUTED, PAPER, WIDE, new_figure, styled, to_svg
from pipeline.reporting.formatting import number

MOST_TICKS = 8
# What a label of an axis takes before it is cut.
LONGEST = 22


@dataclass(frozen=True, eq=False)
class Axis:
    """An upright axis: its title, the place of every configuration from 0 to 1 [N], and (place, label) of ticks."""

    title: str
    places: np.ndarray
    ticks: Sequence[tuple[float, str]]


@styled
def parallel_coordinates(axes: Sequence[Axis], goodness: np.ndarray) -> Markup:
    """Draw each configuration as a line across its settings, which ends at its objective; the best is drawn thickest.

    Args:
        axes: settings, and the objective last.
        goodness: of every configuration, 1 the best and 0 the worst [N].
    """
    figure = new_figure(WIDE, 340)
    plot = figure.add_subplot()
    x = np.arange(len(axes))
    colours = matplotlib.colormaps["viridis"](0.15 + 0.65 * goodness)
    best = int(np.argmax(goodness))
    for i in np.argsort(goodness):
        line = [axis.places[i] for axis in axes]
        colour, width = (MODEL, 3.0) if i == best else (matplotlib.colors.to_hex(colours[i]), 1.3)
        plot.plot(x, line, color=colour, linewidth=width, alpha=1.0 if i == best else 0.75)
    for place, axis in enumerate(axes):
        plot.axvline(place, color=MUTED, linewidth=1.0, zorder=0)
        for height, label in list(axis.ticks)[:MOST_TICKS]:
            plot.annotate(
                _cut(label),
                (place, height),
                (5, 0),
                textcoords="offset points",
                va="center",
                color=INK,
                zorder=5,
                bbox={"boxstyle": "square,pad=0.1", "facecolor": PAPER, "edgecolor": "none"},
            )
    plot.set_xticks(x, [_cut(axis.title) for axis in axes])
    plot.set_yticks([])
    plot.grid(False)
    plot.spines["left"].set_visible(False)
    plot.set_xlim(-0.05, len(axes) - 1 + 0.25)
    return to_svg(figure, "sweep-coordinates", f"{len(goodness)} configurations across {len(axes) - 1} settings")


@styled
def importance_bars(shares: Mapping[str, float]) -> Markup:
    """Draw one bar a setting, the largest on top."""
    figure = new_figure(HALF, 60 + 30 * len(shares))
    plot = figure.add_subplot()
    keys = list(shares)[::-1]
    plot.barh([_cut(key) for key in keys], [shares[key] for key in keys], color=MODEL, height=0.6)
    for place, key in enumerate(keys):
        plot.annotate(number(shares[key], 2), (shares[key], place), (4, 0), textcoords="offset points", va="center")
    plot.set(xlabel="importance")
    plot.set_xlim(0, max(1.0, *shares.values()) * 1.08)
    plot.grid(False)
    return to_svg(figure, "sweep-importance", "Importance of settings: " + ", ".join(shares))


@styled
def learning_curves(curves: Sequence[tuple[np.ndarray, np.ndarray]], goodness: np.ndarray, label: str) -> Markup:
    """Draw the validation loss of every job over its steps; those of the best configuration on top.

    Args:
        curves: (steps [N], values [N]) of each job.
        goodness: of its configuration, 1 the best and 0 the worst.
        label: of the ordinate.
    """
    figure = new_figure(HALF, 290)
    plot = figure.add_subplot()
    colours = matplotlib.colormaps["viridis"](0.15 + 0.65 * goodness)
    for i in np.argsort(goodness):
        steps, values = curves[i]
        colour = MODEL if goodness[i] == 1 else matplotlib.colors.to_hex(colours[i])
        plot.plot(steps, values, color=colour, linewidth=2.4 if goodness[i] == 1 else 1.2, marker="o", markersize=3)
    plot.set(xlabel="step", ylabel=label)
    plot.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    return to_svg(figure, "sweep-curves", f"{label} over steps of {len(curves)} jobs")


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"…{text[1 - LONGEST :]}"
