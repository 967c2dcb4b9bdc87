"""Which experts tokens of one kind prefer, read from the evaluation's tables."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.reporting.tables import read_number, read_rows


@dataclass(frozen=True)
class Preferences:
    """How much oftener the tokens of each group go to an expert than all tokens do.

    Attributes:
        groups: their names.
        layers: {layer: [groups, experts]}, 1 where a group is like all.
    """

    groups: tuple[str, ...]
    layers: dict[str, np.ndarray]


def read_preferences(path: Path) -> dict[str, Preferences]:
    """The preferences of every kind of tokens in a table; none where there is none."""
    cells: dict[str, dict[str, dict[tuple[str, int], float]]] = {}
    for i, row in enumerate(read_rows(path, required=("layer", "kind", "group", "expert", "preference"))):
        place = row["group"], int(read_number(path, i, "expert", row["expert"]))
        layer = cells.setdefault(row["kind"], {}).setdefault(row["layer"], {})
        layer[place] = read_number(path, i, "preference", row["preference"])
    return {kind: _arrange(layers) for kind, layers in cells.items()}


def _arrange(layers: dict[str, dict[tuple[str, int], float]]) -> Preferences:
    groups = tuple(dict.fromkeys(group for cells in layers.values() for group, _ in cells))
    arrays = {}
    for layer, cells in layers.items():
        arrays[layer] = np.full((len(groups), 1 + max(expert for _, expert in cells)), np.nan)
        for (group, expert), value in cells.items():
            arrays[layer][groups.index(group), expert] = value
    return Preferences(groups, arrays)


def read_pairs(path: Path) -> dict[str, np.ndarray]:
    """How much oftener than by chance two experts go together, {layer: [E, E]}; NaN where the table does not say."""
    layers: dict[str, dict[tuple[int, int], float]] = {}
    for i, row in enumerate(read_rows(path, required=("layer", "expert", "other", "lift"))):
        pair = tuple(int(read_number(path, i, column, row[column])) for column in ("expert", "other"))
        layers.setdefault(row["layer"], {})[pair[0], pair[1]] = read_number(path, i, "lift", row["lift"])
    arrays = {}
    for layer, lifts in layers.items():
        n_experts = 1 + max(max(pair) for pair in lifts)
        arrays[layer] = np.full((n_experts, n_experts), np.nan)
        for (expert, other), lift in lifts.items():
            arrays[layer][expert, other] = arrays[layer][other, expert] = lift
    return arrays
