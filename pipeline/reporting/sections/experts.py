"""How evenly tokens spread over the experts."""

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.reporting.data import CURVES, ReportData
from pipeline.reporting.figures.balance import load_heat_map, relative_load
from pipeline.reporting.figures.curves import training_curves
from pipeline.reporting.figures.specialisation import chosen_layers, preference_heat_maps
from pipeline.reporting.formatting import as_mapping, as_number
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
    (
        "Drift of the load",
        r"moe/load_drift.*",
        "share of the load",
        "How much of a layer's load went to other experts since the validation before; it falls as routing settles.",
    ),
)
PREFERENCES = {
    "codebook": "How much oftener each codebook's tokens go to an expert than all tokens do. Pale: the expert takes "
    "all alike; warm: it is that codebook's own.",
    "speaker": "The same for each speaker of the test split.",
}
TOGETHER = (
    "How much oftener two experts are chosen for one token than by chance: warm pairs work together, blue ones stand "
    "in for each other."
)
MAX_DRAWN_EXPERTS = 64


def expert_balance(report: ReportData) -> Section:
    """Show the load of every expert, its summary by layer, and how balance evolved where it was logged."""
    title = "Expert balance"
    layers = _layers(report.metrics, report.expert_load)
    evolutions = _evolutions(report)
    if not layers and not evolutions:
        return absent(title, "No expert load was found: the model routes no tokens, or the evaluation did not count.")
    heat_map = load_heat_map(report.expert_load) if report.expert_load else None
    context = {
        "heat_map": heat_map,
        "layers": layers,
        "specialisation": _specialisation(report),
        "told": _told(report.metrics, [layer["name"] for layer in layers]),
        "figures": evolutions,
    }
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


def _specialisation(report: ReportData) -> list[dict[str, Any]]:
    """Maps of what each codebook and each speaker prefers, and of which experts go together."""
    maps = []
    for kind, caption in PREFERENCES.items():
        preferences = report.expert_preferences.get(kind)
        if preferences is None:
            continue
        names = [f"codebook {group}" if kind == "codebook" else group or "unknown" for group in preferences.groups]
        layers = {layer: preferences.layers[layer] for layer in chosen_layers(list(preferences.layers))}
        title = f"Experts by {kind}"
        svg = preference_heat_maps(layers, names, f"experts-by-{kind}", title)
        maps.append({"title": title, "figure": svg, "caption": caption})
    pairs = {layer: lifts for layer, lifts in report.expert_pairs.items() if len(lifts) <= MAX_DRAWN_EXPERTS}
    if pairs:
        layers = {layer: pairs[layer] for layer in chosen_layers(list(pairs))}
        names = [str(expert) for expert in range(max(len(lifts) for lifts in layers.values()))]
        svg = preference_heat_maps(layers, names, "experts-together", "Experts chosen together")
        maps.append({"title": "Experts chosen together", "figure": svg, "caption": TOGETHER})
    return maps


def _told(metrics: Mapping[str, float], layers: list[str]) -> list[dict[str, Any]]:
    """What a token's expert tells of it, by layer; nothing where the evaluation did not measure it."""
    rows = []
    for layer in layers:
        codebook, speaker, chance = (
            metrics.get(f"eval/moe/{name}/layer_{layer}", math.nan)
            for name in ("codebook_information", "speaker_information", "speaker_information_by_chance")
        )
        if not math.isnan(codebook):
            rows.append({"name": layer, "codebook": codebook, "speaker": speaker, "chance": chance})
    return rows


def _evolutions(report: ReportData) -> list[dict[str, Any]]:
    figures = []
    n_layers = as_number(as_mapping(report.configuration.get("model")).get("num_hidden_layers"))
    for title, columns, label, caption in EVOLUTIONS:
        curves = {
            _curve_name(key, n_layers): curve
            for key, curve in report.history.items()
            if re.fullmatch(columns, key) and len(curve.steps) > 1
        }
        if curves:
            svg = training_curves(curves, title.lower(), label)
            figures.append({"title": title, "figure": svg, "caption": caption})
    return figures


def _curve_name(key: str, n_layers: float) -> str:
    """Name a column of the history by its layer; modules that predict further ahead are counted after the layers."""
    match = re.search(r"/layer_(\d+)$", key)
    if match is None:
        return key.removeprefix("moe/")
    return f"layer {match[1]}" + (" (MTP module)" if int(match[1]) >= n_layers else "")
