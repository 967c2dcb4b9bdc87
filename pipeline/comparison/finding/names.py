"""From a name on the command line to a model."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.comparison.finding.folders import find_folder
from pipeline.comparison.finding.found import Found, Places
from pipeline.comparison.finding.revisions import find_revision
from pipeline.tracking.config import sqlite_path, store_uri

CHAMPION = "champion"
RUN_ID = re.compile(r"[0-9a-f]{32}")


def find_all(names: Sequence[str], places: Places) -> list[Found]:
    """The models of all names, under labels that tell them apart.

    Raises:
        FileNotFoundError, ValueError: naming what cannot be found or compared, and the remedy.
    """
    found = [find(name, places) for name in names]
    labels = _distinct([one.label for one in found])
    return [replace(one, label=label) for one, label in zip(found, labels, strict=True)]


def find(name: str, places: Places) -> Found:
    """The model that a name leads to: a folder before a revision, and that before a run.

    Raises:
        FileNotFoundError: when it leads nowhere.
        ValueError: when it leads to what is no model.
    """
    if name == CHAMPION and _has_store(places):
        from pipeline.comparison.finding.champion import find_champion_model

        return find_champion_model(places)
    found = find_folder(name) or (None if RUN_ID.fullmatch(name) else find_revision(name, places))
    if found is None and _has_store(places):
        # MLflow takes seconds to import.
        from pipeline.comparison.finding.runs import find_run

        found = find_run(name, places)
    if found is None:
        raise FileNotFoundError(
            f"{name} is no folder, no git revision, no DVC experiment{_no_run(places)}. `dvc exp show` and `make ui` "
            "list what there is; an export, an evaluation and the outputs of a training are named by their folders."
        )
    return found


def _has_store(places: Places) -> bool:
    """Whether runs are recorded, and there is something to look into: looking must not make an empty database."""
    if places.tracking.kind == "none":
        return False
    database = sqlite_path(store_uri(places.tracking, places.repository))
    return database is None or Path(database).exists()


def _no_run(places: Places) -> str:
    return " (and tracking=none looks up no runs)" if places.tracking.kind == "none" else " and no MLflow run"


def _distinct(labels: Sequence[str]) -> Iterator[str]:
    """The labels, equal ones numbered in their order."""
    for position, label in enumerate(labels):
        n_before = labels[:position].count(label)
        yield f"{label} #{n_before + 1}" if labels.count(label) > 1 else label
