import csv
import io
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.loggers.logger import DummyLogger

from pipeline.tracking.history import HistoryCheckpoint, HistoryLogger, last_values, write_history_tables
from pipeline.tracking.run import NullRun


class ListedRun(NullRun):
    """A run that keeps what it is given."""

    run_id = "run-7"

    def __init__(self) -> None:
        self.logged: list[tuple[int | None, dict[str, float]]] = []

    def log_metrics(self, metrics, step=None) -> None:  # type: ignore[no-untyped-def]
        self.logged.append((step, dict(metrics)))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history.jsonl"


def lines_of(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_value_reaches_the_rows_the_file_and_the_run(path: Path) -> None:
    run = ListedRun()
    logger = HistoryLogger(path, run)
    logger.log_metrics({"train/loss": 2.5, "epoch": 0}, step=0)
    logger.log_metrics({"val/loss": 3, "moe/load_cv/layer_1": 0.125}, step=4)
    assert run.logged == [(0, {"train/loss": 2.5}), (4, {"val/loss": 3.0, "moe/load_cv/layer_1": 0.125})]
    assert logger.rows == lines_of(path) == [{"step": step, **values} for step, values in run.logged]
    assert (logger.name, logger.version) == ("history", "run-7")


def test_without_tracking_the_rows_are_kept_alike(path: Path) -> None:
    logger = HistoryLogger(path, NullRun())
    logger.log_metrics({"train/loss": 2.5}, step=3)
    assert logger.rows == [{"step": 3, "train/loss": 2.5}]
    assert logger.version == ""


@pytest.mark.parametrize("left", [None, b"", b'{"step": 0, "tra', bytes(range(256))])
def test_a_training_goes_on_with_the_history_of_its_checkpoint_whatever_became_of_the_file(
    path: Path, left: bytes | None
) -> None:
    first = HistoryLogger(path, ListedRun())
    for step in range(5):
        first.log_metrics({"train/loss": float(step)}, step=step)
    checkpoint: dict[str, Any] = {}
    HistoryCheckpoint().on_save_checkpoint(SimpleNamespace(logger=first), None, checkpoint)  # type: ignore[arg-type]
    first.log_metrics({"train/loss": 5.0}, step=5)
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    buffer.seek(0)
    path.unlink()
    if left is not None:
        path.write_bytes(left)

    second = HistoryLogger(path, NullRun())
    opened = torch.load(buffer, weights_only=True)
    HistoryCheckpoint().on_load_checkpoint(SimpleNamespace(logger=second), None, opened)  # type: ignore[arg-type]
    for step in range(5, 10):
        second.log_metrics({"train/loss": float(step)}, step=step)
    assert [row["step"] for row in second.rows] == list(range(10))
    assert lines_of(path) == second.rows
    assert opened["tracked_run"] == "run-7"


def test_ranks_that_record_nothing_save_and_load_nothing() -> None:
    checkpoint: dict[str, Any] = {}
    trainer = SimpleNamespace(logger=DummyLogger())
    HistoryCheckpoint().on_save_checkpoint(trainer, None, checkpoint)  # type: ignore[arg-type]
    HistoryCheckpoint().on_load_checkpoint(trainer, None, checkpoint)  # type: ignore[arg-type]
    assert checkpoint == {}


def test_a_training_that_starts_anew_drops_what_is_there(path: Path) -> None:
    HistoryLogger(path, NullRun()).log_metrics({"train/loss": 1.0}, step=0)
    assert HistoryLogger(path, NullRun()).rows == []
    assert lines_of(path) == []


def test_values_that_are_not_finite_survive(path: Path) -> None:
    logger = HistoryLogger(path, NullRun())
    logger.log_metrics({"train/loss": math.nan, "train/gradient_norm": math.inf}, step=0)
    (row,) = logger.rows
    assert math.isnan(row["train/loss"])
    assert row["train/gradient_norm"] == math.inf


def test_the_last_value_of_every_metric_but_those_of_speed() -> None:
    rows = [{"step": 0, "a": 1.0, "b": 2.0}, {"step": 1, "a": 3.0, "throughput/steps": 9.0}, {"step": 2, "c": 4.0}]
    assert last_values(rows) == {"a": 3.0, "b": 2.0, "c": 4.0}
    assert rows[0] == {"step": 0, "a": 1.0, "b": 2.0}


def test_the_tables_have_a_row_a_step_in_order_and_keep_validation_and_speed_apart(tmp_path: Path) -> None:
    rows = [
        {"step": 10, "train/loss": 1.5, "throughput/steps": 7.0},
        {"step": 9, "train/loss": 2.0, "train/scale": 1.0},
        {"step": 10, "val/loss": 1.25},
    ]
    tables = {path.name: list(csv.reader(path.open())) for path in write_history_tables(rows, tmp_path)}
    assert tables == {
        "history.csv": [["step", "train/loss", "train/scale"], ["9", "2.0", "1.0"], ["10", "1.5", ""]],
        "validation.csv": [["step", "val/loss"], ["10", "1.25"]],
        "throughput.csv": [["step", "throughput/steps"], ["10", "7.0"]],
    }
