import socketserver
import threading
import time

import pytest

from pipeline.tracking import TrackingConfig, start_run
from pipeline.tracking.journal import Journal, owner
from pipeline.tracking.run import RecordedRun
from pipeline.tracking.store import Store, StoreUnavailableError
from pipeline.tracking.writer import BackgroundWriter


@pytest.fixture
def hanging_server():
    """A server that takes every request, and answers none."""
    release = threading.Event()

    class Silence(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            release.wait(30)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Silence) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        release.set()
        server.shutdown()


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "http://no-such-host.invalid:5000"])
def test_a_start_without_the_store_is_refused(tmp_path, uri):
    with pytest.raises(StoreUnavailableError, match=rf"tracking\.uri {uri} .*tracking=none"):
        start_run(TrackingConfig(uri=uri), tmp_path, tmp_path, "run", "train")


def test_a_start_with_a_store_that_says_nothing_is_refused_in_time(tmp_path, hanging_server):
    began = time.monotonic()
    with pytest.raises(StoreUnavailableError, match=r"tracking\.uri"):
        start_run(TrackingConfig(uri=hanging_server), tmp_path, tmp_path, "run", "train")
    assert time.monotonic() - began < 3


def test_a_database_that_cannot_be_one_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailableError, match=r"tracking\.uri"):
        start_run(TrackingConfig(uri="sqlite:///file/mlflow.db"), tmp_path, tmp_path, "run", "train")


def test_a_call_that_hangs_holds_nothing_up(tmp_path, hanging_server, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr("pipeline.tracking.writer.LAST_ATTEMPTS", 1.5)
    path = tmp_path / "tracking_journal.jsonl"
    writer = BackgroundWriter(Journal(path, hanging_server), Store(hanging_server))
    run = RecordedRun({"run_id": "0" * 32}, writer.submit, writer.close)
    slowest = 0.0
    with run:
        for step in range(200):
            began = time.monotonic()
            run.log_metrics({"train/loss": float(step)}, step)
            slowest = max(slowest, time.monotonic() - began)
            time.sleep(0.01)
        closing = time.monotonic()
    assert slowest < 0.5
    assert time.monotonic() - closing < 6
    assert caplog.text.count("is away") == 1
    assert f"201 records kept in {path}" in caplog.text
    assert len(path.read_text().splitlines()) == 202
    assert owner(path)[0] == hanging_server


def test_a_full_disk_costs_the_record_only(root, monkeypatch, caplog, start, client):
    def full(self: Journal, record: object) -> None:
        raise OSError(28, "No space left on device")

    with start() as run:
        with monkeypatch.context() as patch:
            patch.setattr(Journal, "append", full)
            run.log_metrics({"train/loss": 1.0}, 0)
            run.log_metrics({"train/loss": 1.0}, 1)
        run.log_metrics({"train/loss": 1.0}, 2)
    assert caplog.text.count("No space left") == 1
    assert [m.step for m in client.get_metric_history(run.run_id, "train/loss")] == [2]


def test_a_record_that_breaks_the_store_is_given_up(start, client, monkeypatch, caplog):
    from mlflow.tracking import MlflowClient

    def broken(*_: object) -> None:
        raise ConnectionError("a bug of the server")

    monkeypatch.setattr(MlflowClient, "log_inputs", broken)
    monkeypatch.setattr("pipeline.tracking.writer.FIRST_PAUSE", 0.05)
    with start() as run:
        run.log_dataset("tokens", "abc", "data")
        run.log_metrics({"train/loss": 1.0}, 0)
    stored = client.get_run(run.run_id)
    assert (stored.info.status, stored.data.metrics) == ("FINISHED", {"train/loss": 1.0})
    assert "a bug of the server" in caplog.text
