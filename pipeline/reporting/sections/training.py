"""How training went."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.reporting.data import CURVES, Curve, ReportData
from pipeline.reporting.figures.curves import training_curves
from pipeline.reporting.sections.section import Section, absent, render_template


@dataclass(frozen=True)
class Panel:
    """One set of axes: which columns of the history it draws, and what they mean."""

    title: str
    columns: str
    label: str
    caption: str
    baselines: bool = False


PANELS = (
    Panel(
        "Loss",
        r"(train|val)/(lm_|cross_entropy_?)?loss",
        "nats per token",
        "Lower is better. Dashed: what guessing by token counts alone reaches on the test split. "
        "Validation rising while training falls is over-fitting.",
        baselines=True,
    ),
    Panel(
        "Loss of each corpus",
        r"val/loss/.+",
        "nats per token",
        "Validation on each corpus of the mixture; the curve beside is the mean over all of their tokens.",
    ),
    Panel(
        "Multi-token prediction",
        r"(train|val)/.*mtp.*",
        "nats per token",
        "Loss of the extra heads that look further ahead. It lies above the next-token loss and should fall with it.",
    ),
    Panel(
        "Learning rate",
        r"(.*/)?(lr|learning_rate)\b.*",
        "learning rate",
        "The schedule as it was applied.",
    ),
    Panel(
        "Gradient norm",
        r".*grad(ient)?_norm.*",
        "norm before clipping",
        "Steady or falling is healthy; spikes mark batches that clipping had to tame.",
    ),
)
SPLITS = {"train": "training", "val": "validation"}
SPEED_PANELS = (
    Panel(
        "Throughput",
        r".*(tokens|samples|steps)_per_second.*",
        "per second",
        "Higher is faster; a dip is usually another process on the machine.",
    ),
)


def training(report: ReportData) -> Section:
    """Draw loss, multi-token prediction, learning rate and gradient norm over steps, as far as they were logged."""
    title = "Training"
    foreign = report.foreign.get(CURVES, "")
    if not report.history:
        return absent(title, "No training history was found: this model was trained elsewhere, or logging was off.")
    baselines = {
        name: report.metrics[f"eval/loss_{name}"]
        for name in ("uniform", "unigram", "bigram")
        if not math.isnan(report.metrics.get(f"eval/loss_{name}", math.nan))
    }
    # Beside the curves of another training the baselines of this evaluation would say nothing.
    figures = _figures(PANELS, report.history, {} if foreign else baselines)
    if not figures:
        return absent(title, "The training history holds none of the curves shown here.")
    return Section(title, render_template("figures.html.jinja", {"figures": figures}), foreign)


def speed(report: ReportData) -> Section:
    """Draw how fast training went."""
    title = "Speed"
    figures = _figures(SPEED_PANELS, report.throughput, {})
    if not figures:
        return absent(title, "No throughput was found: this model was trained elsewhere.")
    return Section(title, render_template("figures.html.jinja", {"figures": figures}), report.foreign.get(CURVES, ""))


def _figures(
    panels: tuple[Panel, ...], history: Mapping[str, Curve], baselines: Mapping[str, float]
) -> list[dict[str, str]]:
    figures = []
    for panel in panels:
        curves = {_curve_name(key): curve for key, curve in history.items() if re.fullmatch(panel.columns, key)}
        if curves:
            name = f"training-{panel.title.lower()}"
            svg = training_curves(curves, name, panel.label, baselines if panel.baselines else None)
            figures.append({"title": panel.title, "figure": svg, "caption": panel.caption})
    return figures


def _curve_name(key: str) -> str:
    """Name a column of the history as a reader does: `val/mtp_loss_2` is validation, depth 2, `val/loss/a` corpus a."""
    split, _, quantity = key.partition("/")
    if split == "val" and quantity.startswith("loss/"):
        return quantity.removeprefix("loss/")
    depth = re.search(r"mtp_loss_(\d+)$", quantity)
    if split not in SPLITS:
        return key
    return SPLITS[split] + (f", depth {depth[1]}" if depth else "")
