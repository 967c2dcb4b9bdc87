import csv
import math
from pathlib import Path

import pytest

from pipeline.tracking.history import HistoryLogger, last_values, read_history, write_history_tables
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


def test_every_value_reaches_the_file_and_the_run(path: Path) -> None:
    run = ListedRun()
    logger = HistoryLogger(path, run)
    logger.log_metrics({"train/loss": 2.5, "epoch": 0}, step=0)
    logger.log_metrics({"val/loss": 3, "moe/load_cv/layer_1": 0.125}, step=4)
    assert run.logged == [(0, {"train/loss": 2.5}), (4, {"val/loss": 3.0, "moe/load_cv/layer_1": 0.125})]
    assert read_history(path) == [{"step": step, **values} for step, values in run.logged]
    assert (logger.name, logger.version) == ("history", "run-7")


def test_without_tracking_the_file_alone_is_written(path: Path) -> None:
    logger = HistoryLogger(path, NullRun())
    logger.log_metrics({"train/loss": 2.5}, step=3)
    assert read_history(path) == [{"step": 3, "train/loss": 2.5}]
    assert logger.version == ""


def test_a_training_that_goes_on_logs_every_step_once(path: Path) -> None:
    first = HistoryLogger(path, NullRun())
    for step in range(8):
        first.log_metrics({"train/loss": float(step)}, step=step)
    second = HistoryLogger(path, NullRun(), first_step=5)
    for step in range(5, 10):
        second.log_metrics({"train/loss": float(step)}, step=step)
    assert [row["step"] for row in read_history(path)] == list(range(10))


def test_a_training_that_starts_anew_drops_what_is_there(path: Path) -> None:
    HistoryLogger(path, NullRun()).log_metrics({"train/loss": 1.0}, step=0)
    HistoryLogger(path, NullRun())
    assert read_history(path) == []


def test_a_line_cut_short_is_left_out_and_overwritten(path: Path) -> None:
    logger = HistoryLogger(path, NullRun())
    for step in range(3):
        logger.log_metrics({"train/loss": float(step)}, step=step)
    path.write_text(path.read_text()[:-10])
    assert [row["step"] for row in read_history(path)] == [0, 1]
    HistoryLogger(path, NullRun(), first_step=2).log_metrics({"train/loss": 7.0}, step=2)
    assert read_history(path)[2] == {"step": 2, "train/loss": 7.0}
    assert len(read_history(path)) == 3


def test_what_is_kept_is_rewritten_whole_or_not_at_all(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    HistoryLogger(path, NullRun()).log_metrics({"val/loss": 1.0}, step=0)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pipeline.plumbing.files.os.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        HistoryLogger(path, NullRun(), first_step=1)
    assert read_history(path) == [{"step": 0, "val/loss": 1.0}]


def test_no_file_is_no_history(path: Path) -> None:
    assert read_history(path) == []


def test_values_that_are_not_finite_survive(path: Path) -> None:
    HistoryLogger(path, NullRun()).log_metrics({"train/loss": math.nan, "train/gradient_norm": math.inf}, step=0)
    (row,) = read_history(path)
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
