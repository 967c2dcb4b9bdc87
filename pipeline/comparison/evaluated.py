"""An evaluation as a comparison reads it: what was measured, on what, and under which settings. No model is loaded."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.comparison.finding.found import Found
from pipeline.plumbing.files import read_csv, read_json, read_yaml
from pipeline.plumbing.nested import leaves
from pipeline.provenance.identity import IDENTITY, Identity, read_identity
from pipeline.provenance.training import CONFIGURATION

UTTERANCES, CLIPS, MOMENTS = "utterances.csv", "clips.csv", "clips.safetensors"
PAIRS, JUDGEMENTS = "minimal_pairs.csv", "judgements.csv"
# Without these nothing is paired; the other tables are there where their part of the evaluation was.
NEEDED = (UTTERANCES, CLIPS, MOMENTS, IDENTITY, CONFIGURATION)

Row = Mapping[str, str]


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
        trained_with: the settings of its training, {dotted name: value}; empty where they are not at hand.
    """

    label: str
    folder: Path
    export: Path | None
    identity: Identity
    settings: Mapping[str, Any]
    metrics: Mapping[str, float]
    trained_with: Mapping[str, Any]

    def table(self, name: str) -> list[dict[str, str]]:
        """The rows of one of its tables; none where its evaluation did not write it."""
        path = self.folder / name
        return read_csv(path) if path.exists() else []


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
        raise FileNotFoundError(f"{folder / IDENTITY} does not exist; evaluate again: python -m pipeline.evaluate")
    settings = dict(read_yaml(folder / CONFIGURATION))["evaluate"]
    metrics = read_json(folder / "metrics.json")
    trained_with = dict(leaves(read_yaml(found.trained_with))) if found.trained_with else {}
    return Evaluated(found.label, folder, found.export, identity, settings, metrics, trained_with)
