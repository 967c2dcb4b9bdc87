"""Tracking stores that refuse, hang, answer nonsense, are locked, damaged or deleted, or have two writers."""

import random
import shutil
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from mlflow.tracking import MlflowClient

from pipeline.tracking import RunRequest, TrackingConfig, start_run
from pipeline.tracking.store import StoreUnavailableError
from tests.drills.tally import Family, LostError, Tally

# Seconds in which a start is refused, with some for a busy machine.
IN_TIME = 15.0


def stores(root: Path, chance: random.Random, seconds: float) -> list[Tally]:
    """Start runs on stores that cannot be used, and take stores away from runs under way."""
    whole = root / "whole.db"
    MlflowClient(f"sqlite:///{whole}").search_experiments()
    refused = Family("tracking store that cannot be used", chance, seconds / 2)
    kinds = list(UNUSABLE.items())
    chance.shuffle(kinds)
    for name, spoil in kinds:
        if not refused.has_time and refused.tally.tries:
            break
        refused.attempt(name, lambda spoil=spoil: _require_refusal(root, whole, spoil))
    taken = Family("tracking store taken away, two writers", chance, seconds / 2)
    for name, fault in (("deleted", _delete), ("locked for a while", _lock_for_a_while), ("two writers", _two_writers)):
        if taken.has_time or not taken.tally.tries:
            taken.attempt(name, lambda fault=fault: fault(_fresh(root, whole)))
    return [refused.tally, taken.tally]


def _fresh(root: Path, whole: Path) -> Path:
    """A new folder with a store in it."""
    folder = root / f"store-{time.monotonic_ns()}"
    folder.mkdir()
    shutil.copy(whole, folder / "mlflow.db")
    return folder


def _start(folder: Path, uri: str | None = None):  # type: ignore[no-untyped-def]
    return start_run(
        TrackingConfig(uri=uri, system_metrics=False), folder, folder / "outputs", RunRequest("a run", "train")
    )


def _require_refusal(root: Path, whole: Path, spoil: Callable[[Path], Iterator[str | None]]) -> None:
    folder, began = _fresh(root, whole), time.monotonic()
    with contextmanager(spoil)(folder) as uri:
        try:
            with _start(folder, uri):
                raise LostError("a run begins")
        except StoreUnavailableError as error:
            if "\n" in str(error) or "tracking=none" not in str(error):
                raise LostError(f"it is told as {error}") from None
    if time.monotonic() - began > IN_TIME:
        raise LostError(f"it takes {time.monotonic() - began:.0f} s")


def _locked(folder: Path) -> Iterator[None]:
    with closing(sqlite3.connect(folder / "mlflow.db")) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        yield


def _changed(change: Callable[[bytes], bytes]) -> Callable[[Path], Iterator[None]]:
    def spoil(folder: Path) -> Iterator[None]:
        path = folder / "mlflow.db"
        path.write_bytes(change(path.read_bytes()))
        yield

    return spoil


def _folder(folder: Path) -> Iterator[None]:
    (folder / "mlflow.db").unlink()
    (folder / "mlflow.db").mkdir()
    yield


def _revised(revision: str) -> Callable[[Path], Iterator[None]]:
    def spoil(folder: Path) -> Iterator[None]:
        with closing(sqlite3.connect(folder / "mlflow.db")) as connection:
            connection.execute("UPDATE alembic_version SET version_num = ?", [revision])
            connection.commit()
        yield

    return spoil


def _address(uri: str) -> Callable[[Path], Iterator[str]]:
    def spoil(folder: Path) -> Iterator[str]:
        yield uri

    return spoil


def _nobody(folder: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        yield f"http://bob:secret@127.0.0.1:{probe.getsockname()[1]}"


def _silent(folder: Path) -> Iterator[str]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def _answering(status: int) -> Callable[[Path], Iterator[str]]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(status)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    def spoil(folder: Path) -> Iterator[str]:
        server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        server.server_close()

    return spoil


UNUSABLE: dict[str, Callable[[Path], Iterator[str | None]]] = {
    "locked": _locked,
    "a folder": _folder,
    "zeros": _changed(lambda content: bytes(len(content))),
    "text": _changed(lambda content: b"hello"),
    "cut": _changed(lambda content: content[:9000]),
    "damaged pages": _changed(lambda content: content[:8192] + bytes([255]) * 65536 + content[8192 + 65536 :]),
    "of a newer schema": _revised("ffffffffffff"),
    "of an older schema": _revised("451aebb31d03"),
    "of a missing driver": _address("mysql://127.0.0.1:1/runs"),
    "of an unknown driver": _address("postgresql+nonsense://127.0.0.1:1/runs"),
    "refused": _nobody,
    "hanging": _silent,
    "answers 401": _answering(401),
    "answers 403": _answering(403),
    "answers 404": _answering(404),
    "answers 500": _answering(500),
    "answers 503": _answering(503),
}


def _delete(folder: Path) -> None:
    """The database goes while a run is under way: the run ends well, and its journal keeps everything."""
    run = _start(folder)
    (folder / "mlflow.db").unlink()
    with run:
        run.log_metrics({"train/loss": 1.0}, 1)
    journal = folder / "outputs" / "tracking_journal.jsonl"
    if not journal.exists() or "train/loss" not in journal.read_text():
        raise LostError("the journal does not keep what the store has not")


def _lock_for_a_while(folder: Path) -> None:
    """Another process locks the database for seconds: everything arrives in the end."""
    run = _start(folder)
    connection = sqlite3.connect(folder / "mlflow.db", check_same_thread=False)
    connection.execute("BEGIN EXCLUSIVE")
    with run:
        for step in range(50):
            run.log_metrics({"train/loss": float(step)}, step)
        threading.Timer(3.0, lambda: (connection.rollback(), connection.close())).start()
    _require_steps(folder, str(run.run_id), 50)


def _two_writers(folder: Path) -> None:
    """Two runs write to one database from one folder: each has all that is its own."""
    with _start(folder) as first, _start(folder) as second:
        for step in range(50):
            first.log_metrics({"train/loss": float(step)}, step)
            second.log_metrics({"train/loss": float(-step)}, step)
    _require_steps(folder, str(first.run_id), 50)
    _require_steps(folder, str(second.run_id), 50)


def _require_steps(folder: Path, run_id: str, n: int) -> None:
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    found = len(client.get_metric_history(run_id, "train/loss"))
    if found != n:
        raise LostError(f"{found} of {n} steps arrived")
    if client.get_run(run_id).info.status != "FINISHED":
        raise LostError("the run is not marked as finished")
