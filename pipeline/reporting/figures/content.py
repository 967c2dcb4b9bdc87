"""What the model knows of speech: minimal pairs, loss over time, and confidence against accuracy."""

from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, MultipleLocator, PercentFormatter

from pipeline.reporting.figures.style import BAND, HALF, INK, MODEL, MUTED, SECOND, new_figure, styled, to_svg
from pipeline.reporting.formatting import fixed, short
from pipeline.reporting.pairs import CHANCE


@styled
def accuracy_bars(accuracies: Mapping[str, Mapping[str, float]]) -> Markup:
    """Draw one bar a task from chance to its accuracy, with its interval, and a mark where the bigram's lies.

    Args:
        accuracies: by what the task is called: `value`, `low`, `high` and `bigram`, each of them 0 to 1 or NaN.
    """
    figure = new_figure(HALF, 80 + 42 * len(accuracies))
    axes = figure.add_subplot()
    rows = np.arange(len(accuracies))
    values, low, high, bigram = (
        np.array([given.get(key, np.nan) for given in accuracies.values()], dtype=float)
        for key in ("value", "low", "high", "bigram")
    )
    axes.barh(rows, values - CHANCE, left=CHANCE, height=0.5, color=MODEL, label="model")
    axes.hlines(rows, low, high, color=INK, linewidth=1.6, label="95 % interval")
    axes.plot(bigram, rows, "D", color=SECOND, markersize=7, linestyle="none", label="bigram")
    axes.axvline(CHANCE, color=MUTED, linestyle=(0, (4, 3)), linewidth=1.2, label="chance")
    for row, value, upper in zip(rows, values, high, strict=True):
        if np.isfinite(value):
            text = f"{fixed(100 * value, 0)} %"
            axes.annotate(text, (np.nanmax([value, upper]), row), (8, 0), textcoords="offset points", va="center")
    _name_rows(axes, list(accuracies), INK)
    axes.set_xlim(np.nanmin([low, values], initial=0.38) - 0.02, 1.09)
    axes.xaxis.set_major_locator(MultipleLocator(0.1))
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    axes.set_xlabel("pairs in which true speech is more likely")
    figure.legend(loc="outside upper left", ncols=4, borderpad=0.2, columnspacing=1.4)
    spoken = ", ".join(f"{name} {fixed(100 * value, 0)} %" for name, value in zip(accuracies, values, strict=True))
    return to_svg(figure, "minimal-pairs", f"Accuracy on minimal pairs, chance 50 %: {spoken}")


@styled
def loss_over_time(rows: Sequence[Mapping[str, float]]) -> Markup:
    """Draw the loss in stretches of time since the beginning of an utterance, with the interval of each.

    Args:
        rows: `seconds_from`, `seconds_to`, `nats`, `low` and `high` of each stretch, in order.
    """
    figure = new_figure(HALF, 290)
    axes = figure.add_subplot()
    places = np.arange(len(rows))
    _with_interval(axes, places, rows, "nats")
    labels = [f"{short(row['seconds_from'], 3)}–{short(row['seconds_to'], 3)}" for row in rows]
    axes.set_xticks(places, labels, rotation=0 if len(rows) < 6 else 30)
    axes.set(xlabel="seconds since the beginning", ylabel="nats per token")
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.margins(x=0.04, y=0.1)
    return to_svg(figure, "loss-over-time", "Loss over the time since an utterance began")


@styled
def loss_by_speaker(speakers: Mapping[str, Mapping[str, float]]) -> Markup:
    """Draw the loss of each speaker with its interval, in the order given.

    Args:
        speakers: by name: `nats`, `low` and `high`.
    """
    figure = new_figure(HALF, max(160, 70 + 26 * len(speakers)))
    axes = figure.add_subplot()
    places = np.arange(len(speakers))
    values, low, high = (
        np.array([found.get(key, np.nan) for found in speakers.values()]) for key in ("nats", "low", "high")
    )
    axes.hlines(places, low, high, color=INK, linewidth=1.4)
    axes.plot(values, places, "o", color=MODEL, markersize=5)
    _name_rows(axes, [name or "unknown" for name in speakers], MUTED)
    axes.set_xlabel("nats per token")
    spoken = ", ".join(f"{name} {fixed(value, 2)}" for name, value in zip(speakers, values, strict=True))
    return to_svg(figure, "loss-by-speaker", f"Loss by speaker: {spoken}")


@styled
def reliability_curve(rows: Sequence[Mapping[str, float]]) -> Markup:
    """Draw accuracy over confidence, with the interval of each bin, beside the diagonal on which both agree.

    Args:
        rows: `confidence`, `accuracy`, `low`, `high` and `n_tokens` of each bin, in order.
    """
    figure = new_figure(HALF, 290)
    axes = figure.add_subplot()
    counts = np.array([row["n_tokens"] for row in rows])
    confidence = np.array([row["confidence"] for row in rows])
    width = 0.9 / max(15, len(rows))
    axes.bar(confidence, counts / counts.sum(), width, color=BAND, label="share of tokens")
    axes.plot([0, 1], [0, 1], color=MUTED, linestyle=(0, (4, 3)), linewidth=1.2, label="as right as sure")
    _with_interval(axes, confidence, rows, "accuracy")
    axes.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1.02))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    figure.legend(loc="outside upper left", ncols=3, borderpad=0.2, columnspacing=1.4)
    return to_svg(figure, "reliability", "Accuracy of the likeliest token over the confidence in it")


def _with_interval(axes: Axes, places: np.ndarray, rows: Sequence[Mapping[str, float]], key: str) -> None:
    values, low, high = (np.array([row.get(name, np.nan) for row in rows]) for name in (key, "low", "high"))
    axes.vlines(places, low, high, color=INK, linewidth=1.4)
    axes.plot(places, values, "o-", color=MODEL, markersize=5, label="model")


def _name_rows(axes: Axes, names: Sequence[str], colour: str) -> None:
    """Name what lies at 0, 1, 2 … from the top downwards, and measure along the horizontal alone."""
    axes.set_yticks(np.arange(len(names)), names, color=colour)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x")
    axes.spines["left"].set_visible(False)
