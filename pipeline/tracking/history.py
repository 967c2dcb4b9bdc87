"""The course of a training: every logged value and its step, in its checkpoints, on disk and in the tracked run."""

import json
import zlib
from pathlib import Path
from typing import Any

import lightning as L  # noqa: N812
import numpy as np
import torch
from lightning.pytorch.loggers import Logger

from pipeline.plumbing.files import atomic_write, write_csv
from pipeline.tracking.run import TrackedRun

# How fast it went, which no two trainings agree on: kept apart from what equal trainings repeat to the last digit.
SPEED = "throughput/"
VALIDATION = "val/"
# Under which names a checkpoint holds them.
HISTORY = "history"
TRACKED_RUN = "tracked_run"


class HistoryLogger(Logger):
    """A Lightning logger that keeps every row, and passes everything on to a tracked run.

    The rows are the training's own, and go on with it: `HistoryCheckpoint` keeps them in checkpoints. The file of JSON
    lines is there to be watched; whatever happens to it is written over when the training goes on.

    Args:
        path: the file.
        run: the tracked run.
    """

    def __init__(self, path: Path, run: TrackedRun) -> None:
        super().__init__()
        self.path = path
        self.run = run
        self._lines: list[str] = []
        self.restore("")

    @property
    def name(self) -> str:
        """The logger's name, which Lightning asks for."""
        return "history"

    @property
    def version(self) -> str:
        """The tracked run's id."""
        return self.run.run_id or ""

    @property
    def rows(self) -> list[dict[str, float]]:
        """Everything logged so far, {"step": …, metric: value, …}."""
        return [json.loads(line) for line in self._lines]

    @property
    def text(self) -> str:
        """Everything logged so far, one JSON object a line."""
        return "".join(self._lines)

    def restore(self, text: str) -> None:
        """Go on from what another training's `text` was."""
        self._lines = text.splitlines(keepends=True)
        with atomic_write(self.path) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the stage logs the whole configuration itself."""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Record values of one step."""
        values = {name: float(value) for name, value in metrics.items() if name != "epoch"}
        self._lines.append(json.dumps({"step": step or 0, **values}) + "\n")
        with self.path.open("a", encoding="utf-8") as file:
            file.write(self._lines[-1])
        self.run.log_metrics(values, step=step)


class HistoryCheckpoint(L.Callback):
    """Keeps a HistoryLogger's rows, and which run tracks them, with every checkpoint to go on from."""

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the history so far, compressed: checkpoints hold tensors and plain values."""
        if isinstance(trainer.logger, HistoryLogger):
            packed = zlib.compress(trainer.logger.text.encode(), level=1)
            checkpoint[HISTORY] = torch.from_numpy(np.frombuffer(packed, dtype=np.uint8).copy())
            checkpoint[TRACKED_RUN] = trainer.logger.run.run_id

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Go on with the history of the checkpoint."""
        if isinstance(trainer.logger, HistoryLogger):
            trainer.logger.restore(zlib.decompress(checkpoint[HISTORY].numpy().tobytes()).decode())


def last_values(rows: list[dict[str, float]]) -> dict[str, float]:
    """The value of every metric when it was last logged, those of speed left out."""
    values: dict[str, float] = {}
    for row in rows:
        values |= row
    return {name: value for name, value in values.items() if name != "step" and not name.startswith(SPEED)}


def write_history_tables(rows: list[dict[str, float]], folder: Path) -> list[Path]:
    """Write the history as three tables, a cadence and a kind each.

    Returns:
        `history.csv`, of training steps; `validation.csv`; and `throughput.csv`, the only one that differs from one
        training to an equal one.
    """
    tables: dict[str, list[dict[str, float]]] = {"history.csv": [], "validation.csv": [], "throughput.csv": []}
    for row in rows:
        for name, value in row.items():
            if name != "step":
                tables[_table(name)].append({"step": row["step"], name: value})
    for file, table in tables.items():
        _write_table(table, folder / file)
    return [folder / file for file in tables]


def _table(name: str) -> str:
    if name.startswith(SPEED):
        return "throughput.csv"
    return "validation.csv" if name.startswith(VALIDATION) else "history.csv"


def _write_table(rows: list[dict[str, float]], path: Path) -> None:
    """Write rows of history as CSV: one row a step, one column a metric, blank where nothing was logged."""
    steps: dict[float, dict[str, float]] = {}
    for row in rows:
        steps.setdefault(row["step"], {}).update(row)
    table = [steps[step] for step in sorted(steps)]
    names = sorted({name for row in table for name in row} - {"step"})
    write_csv(path, table, columns=["step", *names])
