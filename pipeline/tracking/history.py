"""The course of a training: every logged value and its step, on disk and in the tracked run."""

import json
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger

from pipeline.plumbing.files import atomic_write, write_csv
from pipeline.tracking.run import TrackedRun


class HistoryLogger(Logger):
    """A Lightning logger that appends to a file of JSON lines, and passes everything on to a tracked run.

    Args:
        path: the file; what it holds stays, when a training goes on.
        run: the tracked run.
        first_step: rows from this step on are dropped first: the training that goes on will log them again.
    """

    def __init__(self, path: Path, run: TrackedRun, first_step: int = 0) -> None:
        super().__init__()
        self.path = path
        self.run = run
        kept = [row for row in read_history(path) if row["step"] < first_step]
        with atomic_write(path) as temporary:
            temporary.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")

    @property
    def name(self) -> str:
        """The logger's name, which Lightning asks for."""
        return "history"

    @property
    def version(self) -> str:
        """The tracked run's id."""
        return self.run.run_id or ""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the stage logs the whole configuration itself."""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Record values of one step."""
        values = {name: float(value) for name, value in metrics.items() if name != "epoch"}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step or 0, **values}) + "\n")
        self.run.log_metrics(values, step=step)


def read_history(path: Path) -> list[dict[str, float]]:
    """Rows of a history file; a last line that an interruption cut short is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def last_values(rows: list[dict[str, float]]) -> dict[str, float]:
    """The value of every metric when it was last logged."""
    values: dict[str, float] = {}
    for row in rows:
        values |= row
    values.pop("step", None)
    return values


def write_history_table(rows: list[dict[str, float]], path: Path) -> None:
    """Write the history as CSV: one row a step, one column a metric, blank where nothing was logged."""
    steps: dict[float, dict[str, float]] = {}
    for row in rows:
        steps.setdefault(row["step"], {}).update(row)
    table = [steps[step] for step in sorted(steps)]
    names = sorted({name for row in table for name in row} - {"step"})
    write_csv(path, table, columns=["step", *names])
