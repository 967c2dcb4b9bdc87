"""An evaluation as a comparison reads it: what was measured, on what, and under which settings. No model is loaded."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.comparison.finding.found import Found
from pipeline.comparison.tables import CLIPS, EVALUATE_AGAIN, MOMENTS, UTTERANCES, read_moments, read_table
from pipeline.evaluation.speakers import Speakers
from pipeline.plumbing.files import read_json, read_yaml
from pipeline.plumbing.nested import leaves
from pipeline.provenance.identity import IDENTITY, Identity, read_identity
from pipeline.provenance.training import CONFIGURATION

METRICS, INTERVALS, JUDGES = "metrics.json", "intervals.json", "judges.json"
# Without these nothing is paired; the other tables are there where their part of the evaluation was.
NEEDED = (UTTERANCES, CLIPS, MOMENTS, INTERVALS, IDENTITY, CONFIGURATION)


@dataclass(frozen=True)
class Evaluated:
    """A model that was evaluated.

    Attributes:
        label: what it is called.
        folder: of its evaluation.
        export: of the model; None: it is not at hand.
        identity: which training it is of, and the data that it was measured on.
        settings: the group `evaluate` that it was measured with.
        metrics: its flat figures.
        speakers: whether it has heard who speaks there.
        judges: those who judged its speech, {name: {origin, measures}}.
        trained_with: the settings of its training, {dotted name: value}; empty where they are not at hand.
    """

    label: str
    folder: Path
    export: Path | None
    identity: Identity
    settings: Mapping[str, Any]
    metrics: Mapping[str, float]
    speakers: Speakers
    judges: Mapping[str, Mapping[str, Any]]
    trained_with: Mapping[str, Any]

    @property
    def data_settings(self) -> Mapping[str, Any]:
        """The settings of its training, where it was measured on the data of that; empty where on others."""
        training = self.identity.training
        return self.trained_with if training and training.data == self.identity.data else {}

    def table(self, name: str) -> list[dict[str, str]]:
        """The rows of one of its tables; none where its evaluation did not write it."""
        return read_table(self.folder / name)

    def moments(self) -> dict[str, np.ndarray]:
        """The Fréchet moments of its clips, and of what they are held against."""
        return read_moments(self.folder / MOMENTS)


def missing_tables(folder: Path) -> list[str]:
    """What an evaluation lacks to be compared, as those of earlier versions do."""
    return [name for name in NEEDED if not (folder / name).is_file()]


def read_evaluated(found: Found, folder: Path) -> Evaluated:
    """Read an evaluation of a model that has its tables.

    Raises:
        FileNotFoundError, ValueError: when a file is missing or damaged; the message names it.
    """
    identity = read_identity(folder / IDENTITY)
    if identity is None:
        raise FileNotFoundError(f"{folder / IDENTITY} does not exist; {EVALUATE_AGAIN}.")
    return Evaluated(
        found.label,
        folder,
        found.export,
        identity,
        _part(folder / CONFIGURATION, read_yaml(folder / CONFIGURATION), "evaluate"),
        read_json(folder / METRICS),
        Speakers(_part(folder / INTERVALS, read_json(folder / INTERVALS), "speakers")),
        read_json(folder / JUDGES).get("judges", {}) if (folder / JUDGES).exists() else {},
        dict(leaves(read_yaml(found.trained_with))) if found.trained_with else {},
    )


def _part(path: Path, content: Any, key: str) -> Any:
    """What a file says under a key."""
    if not isinstance(content, Mapping) or key not in content:
        raise ValueError(f"{path} does not say {key!r}; {EVALUATE_AGAIN}.")
    return content[key]
