"""Everything a report shows, read from the files the other stages wrote."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.comparison.result import Comparison
from pipeline.plumbing.files import companion, read_json
from pipeline.reporting.clips import Clip, load_clips
from pipeline.reporting.judged import Judged, read_judged
from pipeline.reporting.specialisation import Preferences, read_pairs, read_preferences
from pipeline.reporting.tables import read_number, read_rows

# The parts of a report that the evaluation itself does not write.
CURVES, CONVERSION, DATA = "curves", "conversion", "data"


@dataclass(frozen=True)
class ReportPaths:
    """The folders the stages wrote: prepared data, and the outputs of train, convert_checkpoint and evaluate."""

    prepared: Path
    train: Path
    export: Path
    evaluate: Path

    @classmethod
    def under(cls, prepared: Path | str, outputs: Path | str) -> "ReportPaths":
        """Return the usual folders: `prepared`, and `train`, `export` and `evaluate` under `outputs`."""
        outputs = Path(outputs)
        return cls(Path(prepared), outputs / "train", outputs / "export", outputs / "evaluate")


@dataclass(frozen=True)
class Curve:
    """One logged quantity: `values` [N] at training `steps` [N], where it was logged."""

    steps: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class ReportData:
    """What the sections of the page are made from; whatever a run did not write is empty.

    `metrics` are the evaluation's flat keys. `history` holds one curve a column of the training history,
    `throughput` how fast it went. `expert_load` maps a layer to the load [E] of its experts, `expert_preferences` a
    kind of tokens, `codebook` or `speaker`, to those of its groups in every layer; `comparison` maps a signal to
    its measures; `loss_by_codebook` has one row a codebook position, `loss_by_position` one a stretch of time,
    `calibration` one a bin of confidence, `loss_by_speaker` the figures of each speaker; `minimal_pairs` says what
    was not asked; `judged` is what judges said, and how long speech went. `data_card`, `conversion`, `run`,
    `lineage`, `environment` and `compliance` are shown as they were written.
    `foreign` says of each part, `CURVES`, `CONVERSION` or `DATA`, that is from another training than the evaluation,
    from which it is.

    `against` holds the model against another, where `report.baseline` names one.

    `throughput`, `run`, `lineage`, `environment` and `created` differ between equal trainings: they stand on a page
    of their own.
    """

    metrics: Mapping[str, float]
    title: str = "Melisma"
    configuration: Mapping[str, Any] = field(default_factory=dict)
    history: Mapping[str, Curve] = field(default_factory=dict)
    throughput: Mapping[str, Curve] = field(default_factory=dict)
    expert_load: Mapping[str, np.ndarray] = field(default_factory=dict)
    expert_preferences: Mapping[str, Preferences] = field(default_factory=dict)
    expert_pairs: Mapping[str, np.ndarray] = field(default_factory=dict)
    loss_by_codebook: tuple[Mapping[str, float], ...] = ()
    loss_by_position: tuple[Mapping[str, float], ...] = ()
    loss_by_speaker: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    calibration: tuple[Mapping[str, float], ...] = ()
    minimal_pairs: Mapping[str, Any] = field(default_factory=dict)
    comparison: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    clips: tuple[Clip, ...] = ()
    judged: Judged = Judged()
    data_card: Mapping[str, Any] = field(default_factory=dict)
    conversion: Mapping[str, Any] = field(default_factory=dict)
    checkpoint: str = ""
    run: Mapping[str, Any] = field(default_factory=dict)
    lineage: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    compliance: Mapping[str, Any] = field(default_factory=dict)
    foreign: Mapping[str, str] = field(default_factory=dict)
    against: Comparison | None = None
    created: datetime = field(default_factory=lambda: datetime.now(UTC))


def collect(
    paths: ReportPaths,
    configuration: Mapping[str, Any] | None = None,
    *,
    title: str = "Melisma",
    n_examples: int = 4,
    lineage: Mapping[str, Any] | None = None,
    environment: Mapping[str, Any] | None = None,
    compliance: Mapping[str, Any] | None = None,
    checkpoint: str = "",
    run: Mapping[str, Any] | None = None,
    foreign: Mapping[str, str] | None = None,
) -> ReportData:
    """Read what a report shows.

    Only the evaluation's metrics.json is required: the other files are left out when they do not exist, and their
    sections say so.

    Args:
        paths: where the stages wrote.
        configuration: the composed configuration, as plain nested mappings.
        title: the page's title.
        n_examples: how many utterances of each kind to embed.
        lineage: what the run was made from (git commit, DVC hashes), shown as given.
        environment: the machine and the versions, shown as given.
        compliance: the model beside the paper and the card, as `python -m pipeline.compliance output=json` prints it.
        checkpoint: the digest of the one that was evaluated; empty where nobody knows.
        run: what leads to the tracked run of the training that was evaluated.
        foreign: {part: sentence} of what is from another training, as `disagreements` finds it.

    Raises:
        FileNotFoundError: the evaluation's metrics, or an audio file it lists, do not exist.
        ValueError: a file is malformed; the message names it.
    """
    if n_examples < 0:
        raise ValueError(f"report.n_examples is {n_examples}; set it to 0 or more.")
    return ReportData(
        metrics=_metrics(paths.evaluate / "metrics.json", stage="evaluate"),
        title=title,
        configuration=configuration or {},
        history=_history(paths.train / "history.csv") | _history(paths.train / "validation.csv"),
        throughput=_history(paths.train / "throughput.csv"),
        expert_load=_expert_load(paths.evaluate / "expert_load.csv"),
        expert_preferences=read_preferences(paths.evaluate / "expert_preferences.csv"),
        expert_pairs=read_pairs(paths.evaluate / "expert_pairs.csv"),
        loss_by_codebook=_numeric_rows(paths.evaluate / "loss_by_codebook.csv"),
        loss_by_position=_numeric_rows(paths.evaluate / "loss_by_position.csv"),
        loss_by_speaker=_named_rows(paths.evaluate / "loss_by_speaker.csv", "speaker"),
        calibration=_numeric_rows(paths.evaluate / "calibration.csv"),
        minimal_pairs=_optional_mapping(paths.evaluate / "minimal_pairs.json"),
        comparison=_named_rows(paths.evaluate / "comparison.csv", "signal"),
        judged=read_judged(paths.evaluate),
        clips=load_clips(paths.evaluate, n_examples),
        data_card=_optional_mapping(paths.prepared / "data_card.json"),
        conversion=_optional_mapping(companion(paths.export, "conversion_report.json")),
        checkpoint=checkpoint,
        run=run or {},
        lineage=lineage or {},
        environment=environment or {},
        compliance=compliance or {},
        foreign=foreign or {},
    )


def _metrics(path: Path, stage: str) -> dict[str, float]:
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; run the {stage} stage first (python -m pipeline.{stage}).")
    metrics = {}
    for key, value in _optional_mapping(path).items():
        if isinstance(value, bool) or not isinstance(value, int | float | None):
            raise ValueError(f"{path}: {key} is {value!r}, not a number; run the {stage} stage again.")
        metrics[key] = float("nan") if value is None else float(value)
    return metrics


def _optional_mapping(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    value = read_json(path)
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds a {type(value).__name__}, not an object; run the stage that writes it again.")
    return value


def _numeric_rows(path: Path) -> tuple[dict[str, float], ...]:
    rows = read_rows(path)
    return tuple({key: read_number(path, i, key, cell) for key, cell in row.items()} for i, row in enumerate(rows))


def _history(path: Path) -> dict[str, Curve]:
    """Split the wide history into one curve a column, without the steps at which the column was not logged."""
    read_rows(path, required=("step",))
    rows = _numeric_rows(path)
    if not rows:
        return {}
    steps = np.array([row["step"] for row in rows])
    curves = {}
    for column in rows[0]:
        values = np.array([row[column] for row in rows])
        logged = np.isfinite(values) & np.isfinite(steps)
        if column not in ("step", "epoch") and logged.any():
            curves[column] = Curve(steps[logged], values[logged])
    return curves


def _expert_load(path: Path) -> dict[str, np.ndarray]:
    layers: dict[str, dict[float, float]] = {}
    for i, row in enumerate(read_rows(path, required=("layer", "expert", "load"))):
        expert = read_number(path, i, "expert", row["expert"])
        layers.setdefault(row["layer"], {})[expert] = read_number(path, i, "load", row["load"])
    return {layer: np.array([load[expert] for expert in sorted(load)]) for layer, load in layers.items()}


def _named_rows(path: Path, name: str) -> dict[str, dict[str, float]]:
    """Read a table of numbers whose rows are told apart by the column `name`."""
    rows = read_rows(path, required=(name,))
    return {
        row[name]: {key: read_number(path, i, key, cell) for key, cell in row.items() if key != name}
        for i, row in enumerate(rows)
    }
