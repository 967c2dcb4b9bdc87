"""How evenly tokens spread over the experts."""

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.reporting.data import CURVES, ReportData
from pipeline.reporting.figures.balance import load_heat_map, relative_load
from pipeline.reporting.figures.curves import training_curves
from pipeline.reporting.sections.section import Section, absent, render_template

EVOLUTIONS = (
    (
        "Violation over training",
        r"moe/max_violation.*",
        "maximal violation",
        "How far the busiest expert of a layer was above an even share; balancing pulls it towards 0.",
    ),
    (
        "Load variation over training",
        r"moe/load_cv.*",
        "coefficient of variation",
        "Spread of the load within a layer; 0 is perfectly even.",
    ),
    (
        "Routing bias over training",
        r".*bias.*",
        "range of biases",
        "How far apart the corrections of a layer's routing scores lie; levelling off means that balance is reached.",
    ),
)


def expert_balance(report: ReportData) -> Section:
    """Show the load of every expert, its summary by layer, and how balance evolved where it was logged."""
    title = "Expert balance"
    layers = _layers(report.metrics, report.expert_load)
    evolutions = _evolutions(report)
    if not layers and not evolutions:
        return absent(title, "No expert load was found: the model routes no tokens, or the evaluation did not count.")
    heat_map = load_heat_map(report.expert_load) if report.expert_load else None
    context = {"heat_map": heat_map, "layers": layers, "figures": evolutions}
    return Section(title, render_template("experts.html.jinja", context), report.foreign.get(CURVES, ""))


def _layers(metrics: Mapping[str, float], load: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """Summarise each layer: the evaluation's own numbers, and the extremes of its load where that was written."""
    measured = [
        match[1] for key in metrics if (match := re.fullmatch(r"eval/moe/(?:max_violation|load_cv)/layer_(.+)", key))
    ]
    return [_layer(name, metrics, load.get(name)) for name in dict.fromkeys([*load, *measured])]


def _layer(name: str, metrics: Mapping[str, float], load: np.ndarray | None) -> dict[str, Any]:
    summary: dict[str, Any] = {
        "name": name,
        "max_violation": metrics.get(f"eval/moe/max_violation/layer_{name}", math.nan),
        "load_cv": metrics.get(f"eval/moe/load_cv/layer_{name}", math.nan),
        "extremes": None,
    }
    if load is None:
        return summary
    relative = relative_load(load)
    if not np.isfinite(relative).any():
        return summary
    busiest, idlest = int(np.nanargmax(relative)), int(np.nanargmin(relative))
    summary["extremes"] = (busiest, relative[busiest], idlest, relative[idlest])
    if math.isnan(summary["max_violation"]):
        summary["max_violation"] = relative[busiest] - 1.0
    if math.isnan(summary["load_cv"]):
        summary["load_cv"] = float(np.nanstd(relative))
    return summary


def _evolutions(report: ReportData) -> list[dict[str, Any]]:
    figures = []
    for title, columns, label, caption in EVOLUTIONS:
        curves = {
            key.removeprefix("moe/"): curve
            for key, curve in report.history.items()
            if re.fullmatch(columns, key) and len(curve.steps) > 1
        }
        if curves:
            svg = training_curves(curves, title.lower(), label)
            figures.append({"title": title, "figure": svg, "caption": caption})
    return figures
