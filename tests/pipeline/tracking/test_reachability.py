"""A store that cannot be used is refused in one sentence, within seconds."""

import shutil
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from pipeline.tracking import RunRequest, TrackingConfig, start_run
from pipeline.tracking.reachability import within
from pipeline.tracking.store import StoreUnavailableError


@pytest.fixture(autouse=True)
def little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.tracking.reachability.PATIENCE", 1.5)
    monkeypatch.setattr("pipeline.tracking.database.LOCK_PATIENCE", 0.3)


def refusal(uri: str, root: Path) -> str:
    began = time.monotonic()
    with pytest.raises(StoreUnavailableError) as caught:
        start_run(TrackingConfig(uri=uri, system_metrics=False), root, root / "outputs", RunRequest("a run", "train"))
    assert time.monotonic() - began < 10
    message = str(caught.value)
    assert message.startswith("tracking.uri ")
    assert message.count("\n") == 0
    assert "tracking=none" in message
    return message


def lock(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path)
    connection.execute("BEGIN EXCLUSIVE")
    return connection


def damage_a_page(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096 * 3 : 4096 * 30] = bytes(255 for _ in range(4096 * 27))
    path.write_bytes(content)


def set_revision(path: Path, revision: str) -> None:
    connection = sqlite3.connect(path)
    connection.execute("UPDATE alembic_version SET version_num = ?", [revision])
    connection.commit()
    connection.close()


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lock, "locked by another process"),
        (make_folder, "is a folder"),
        (lambda path: path.write_bytes(b"once a database" * 1000), "no sqlite database"),
        (lambda path: path.write_bytes(bytes(4096)), "no sqlite database"),
        (damage_a_page, "is damaged"),
        (lambda path: path.write_bytes(path.read_bytes()[:5000]), "is damaged"),
        (lambda path: set_revision(path, "ffffffffffff"), "newer MLflow"),
        (lambda path: set_revision(path, "451aebb31d03"), "mlflow db upgrade"),
    ],
    ids=["locked", "folder", "text", "zeros", "page", "cut", "newer", "older"],
)
def test_a_database_that_cannot_be_used_is_named(root: Path, spoil: Callable[[Path], object], words: str) -> None:
    kept = spoil(root / "mlflow.db")
    assert words in refusal("sqlite:///mlflow.db", root)
    del kept


def test_a_missing_driver_is_named(root: Path) -> None:
    assert "mysqlclient" in refusal("mysql://127.0.0.1:1/runs", root)
    assert "no such database driver" in refusal("postgresql+nonsense://127.0.0.1:1/runs", root)


@contextmanager
def server(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    listening = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listening.server_port}"
    finally:
        listening.shutdown()
        listening.server_close()


def drip(request: BaseHTTPRequestHandler) -> None:
    """An answer that never ends and never pauses long enough for a time-out."""
    request.send_response(200)
    request.end_headers()
    try:
        for _ in range(60):
            request.wfile.write(b" ")
            time.sleep(0.05)
    except OSError:
        return


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda request: request.send_error(401), "MLFLOW_TRACKING_PASSWORD"),
        (lambda request: request.send_error(403), "refuses this user"),
        (lambda request: request.send_error(404), "not as an MLflow server"),
        (lambda request: request.send_error(500), "error 500"),
        (drip, "no answer within"),
    ],
    ids=["401", "403", "404", "500", "drip"],
)
def test_a_server_that_cannot_be_used_is_named(
    tmp_path: Path, answer: Callable[[BaseHTTPRequestHandler], None], words: str
) -> None:
    with server(answer) as uri:
        assert words in refusal(uri, tmp_path)


def test_a_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        assert "nothing listens" in refusal(f"http://127.0.0.1:{probe.getsockname()[1]}", tmp_path)


def test_a_store_is_made_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted:
        def __init__(self, tracking_uri: str) -> None:
            Path(tracking_uri.removeprefix("sqlite:///")).write_bytes(b"half a database")

        def search_experiments(self, max_results: int) -> None:
            raise KeyboardInterrupt

    monkeypatch.setattr("pipeline.tracking.database.MlflowClient", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        start_run(TrackingConfig(), tmp_path, tmp_path / "outputs", RunRequest("a run", "train"))
    assert not list(tmp_path.glob("*.db")) + list(tmp_path.glob(".*.db"))


@pytest.mark.parametrize("name", ["50%20off", "100%", "what?", "a#b c", "größe 語", "it's&=;+@"])
def test_a_checkout_may_lie_in_a_folder_of_any_name(tmp_path: Path, empty_database: Path, name: str) -> None:
    root = tmp_path / name
    root.mkdir()
    shutil.copy(empty_database, root / "mlflow.db")
    before = (root / "mlflow.db").read_bytes()
    (root / "a.wav").write_text("wave")
    with start_run(TrackingConfig(system_metrics=False), root, root / "outputs", RunRequest("a run", "train")) as run:
        run.log_artifact(root / "a.wav", "audio")
    assert (root / "mlartifacts" / str(run.run_id) / "artifacts" / "audio" / "a.wav").read_text() == "wave"
    assert (root / "mlflow.db").read_bytes() != before
    assert not list((root / "outputs").iterdir())
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_what_takes_too_long_is_left_behind() -> None:
    assert within(1.0, lambda: 7) == 7
    with pytest.raises(TimeoutError, match="0.05 s"):
        within(0.05, lambda: time.sleep(1.0))
