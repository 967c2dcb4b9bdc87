"""The course of a training: every logged value and its step, on disk and in the tracked run."""

import json
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger

from pipeline.plumbing.files import atomic_write, write_csv
from pipeline.tracking.run import TrackedRun

# How fast it went, which no two trainings agree on: kept apart from what equal trainings repeat to the last digit.
SPEED = "throughput/"
VALIDATION = "val/"


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
