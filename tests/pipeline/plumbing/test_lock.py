"""Held by other processes: a lock of this one says nothing about them."""

import logging
import multiprocessing
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from pipeline.plumbing.lock import InUseError, alone, exclusive, in_turn, is_held


def hold(lock: Path, held: Any, may_end: Any) -> None:
    with exclusive(lock, "training small", lock.parent):
        held.set()
        may_end.wait(60)


@pytest.fixture
def holder(tmp_path: Path) -> Any:
    """A process that holds the lock, and what lets it end."""
    context = multiprocessing.get_context("spawn")
    held, may_end = context.Event(), context.Event()
    process = context.Process(target=hold, args=(tmp_path / "train.lock", held, may_end), daemon=True)
    process.start()
    assert held.wait(60)
    yield process, may_end
    process.kill()
    process.join()


def test_a_second_writer_is_refused_by_name_and_process_until_the_first_is_done(tmp_path: Path, holder: Any) -> None:
    process, may_end = holder
    refusal = rf"training small \(process {process.pid} on .*, since 20.*\) writes to outputs; wait until it is done"
    for _ in range(2):
        with pytest.raises(InUseError, match=refusal), exclusive(tmp_path / "train.lock", "other", Path("outputs")):
            pytest.fail("both wrote")
    may_end.set()
    process.join()
    with exclusive(tmp_path / "train.lock", "other", Path("outputs")):
        pass


def test_a_writer_that_was_killed_is_named_and_holds_nothing(
    tmp_path: Path, holder: Any, caplog: pytest.LogCaptureFixture
) -> None:
    process, _ = holder
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with caplog.at_level(logging.INFO), exclusive(tmp_path / "train.lock", "other", Path("outputs")):
        assert f"training small (process {process.pid} on" in caplog.text
        assert "did not end by itself" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO), exclusive(tmp_path / "train.lock", "other", Path("outputs")):
        assert caplog.text == ""


def test_one_that_waits_comes_after_the_first_says_for_whom_and_leaves_no_lock(
    tmp_path: Path, holder: Any, caplog: pytest.LogCaptureFixture
) -> None:
    process, may_end = holder
    threading.Timer(0.3, may_end.set).start()
    with caplog.at_level(logging.INFO), in_turn(tmp_path / "train.lock", "other", Path("outputs")):
        assert may_end.is_set()
        assert is_held(tmp_path / "train.lock")
    assert f"training small (process {process.pid} on" in caplog.text
    assert "writes to outputs; waiting until it is done." in caplog.text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["", "[]", "{}", "\x00", '{"process": "x", "writer": 1}'])
def test_an_owner_that_is_not_readable_is_no_obstacle(tmp_path: Path, content: str) -> None:
    (tmp_path / "train.lock.json").write_text(content)
    with exclusive(tmp_path / "train.lock", "other", Path("outputs")):
        pass


def test_what_a_holder_was_called_with_is_kept_without_passwords(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["train.py", "tracking.uri=https://ann:hush-hush@mlflow.example/"])
    with exclusive(tmp_path / "train.lock", "training", Path("outputs")):
        kept = (tmp_path / "train.lock.json").read_text()
    assert "train.py" in kept
    assert "hush-hush" not in kept


def test_a_target_is_written_by_one_process_and_nothing_of_its_lock_stays(tmp_path: Path) -> None:
    target = tmp_path / "evaluate"
    with alone(target, "An evaluation", "target=…"):
        refusal = pytest.raises(InUseError, match=r"An evaluation .*writes to .*evaluate; .*\(target=…\)")
        with refusal, alone(target, "An evaluation", "target=…"):
            pytest.fail("both wrote")
    with pytest.raises(KeyError), alone(target, "An evaluation", "target=…"):
        raise KeyError
    assert list(tmp_path.iterdir()) == []
