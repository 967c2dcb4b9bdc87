import time
from collections.abc import Iterator

import pytest

from benchmarks.tracking import DELAYS, FAILING, GONE, HANGING, SLOW, faulty_server
from pipeline.tracking import RunRequest, TrackingConfig, start_run
from pipeline.tracking.journal import Journal, owner
from pipeline.tracking.replay import replay
from pipeline.tracking.run import RecordedRun
from pipeline.tracking.store import Store, StoreUnavailableError
from pipeline.tracking.writer import BackgroundWriter

STEPS = 50


@pytest.fixture
def hanging_server() -> Iterator[str]:
    with faulty_server(HANGING) as server:
        yield server.uri


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "http://no-such-host.invalid:5000"])
def test_a_start_without_the_store_is_refused(tmp_path, uri):
    with pytest.raises(StoreUnavailableError, match=rf"tracking\.uri {uri} .*tracking=none"):
        start_run(TrackingConfig(uri=uri), tmp_path, tmp_path, RunRequest("run", "train"))


def test_a_start_with_a_store_that_says_nothing_is_refused_in_time(tmp_path, hanging_server):
    began = time.monotonic()
    with pytest.raises(StoreUnavailableError, match=r"tracking\.uri"):
        start_run(TrackingConfig(uri=hanging_server), tmp_path, tmp_path, RunRequest("run", "train"))
    # MLflow itself would ask for minutes.
    assert time.monotonic() - began < DELAYS[HANGING] / 2


def test_a_database_that_cannot_be_one_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailableError, match=r"tracking\.uri"):
        start_run(TrackingConfig(uri="sqlite:///file/mlflow.db"), tmp_path, tmp_path, RunRequest("run", "train"))


@pytest.mark.parametrize("state", [FAILING, HANGING, GONE])
@pytest.mark.parametrize("by", ["replay", "the next run"])
def test_what_a_server_does_not_take_is_kept_and_delivered_later(tmp_path, state, by, monkeypatch, caplog):
    """A server that hangs answers when all is over: who waited for it would not come to the end."""
    caplog.set_level("INFO")
    monkeypatch.setattr("pipeline.tracking.writer.LAST_ATTEMPTS", 0.5)
    path = tmp_path / "tracking_journal.jsonl"
    with faulty_server(state) as server:
        writer = BackgroundWriter(Journal(path, server.uri), Store(server.uri))
        with RecordedRun({"run_id": "0" * 32}, writer.submit, writer.close) as run:
            for step in range(STEPS):
                run.log_metrics({"train/loss": float(step)}, step)
        assert caplog.text.count("is away") == 1
        assert f"{STEPS + 1} records kept in {path}; replay with `python -m pipeline.tracking.replay" in caplog.text
        assert owner(path)[0] == server.uri
        assert not server.requests

        server.mend()
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
        if by == "replay":
            assert replay(path) == STEPS + 1
        else:
            assert BackgroundWriter(Journal(path, server.uri), Store(server.uri)).close() == 0
        assert not path.exists()
        taken = [metric["step"] for place, body in server.requests for metric in body.get("metrics", [])]
        assert sorted(set(taken)) == list(range(STEPS))
        assert server.requests[-1][1]["status"] == "FINISHED"


def test_a_slow_server_holds_the_end_of_a_run_so_long_and_no_longer(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("pipeline.tracking.writer.LONGEST_END", 0.5)
    monkeypatch.setitem(DELAYS, SLOW, 0.2)
    path = tmp_path / "tracking_journal.jsonl"
    with faulty_server(SLOW) as server:
        writer = BackgroundWriter(Journal(path, server.uri), Store(server.uri))
        with RecordedRun({"run_id": "0" * 32}, writer.submit, lambda: None) as run:
            for number in range(STEPS):
                run.set_tags({"number": str(number)})
        kept = writer.close()
        assert 0 < kept < STEPS + 1
        assert f"{kept} records kept in {path}" in caplog.text
        server.mend()
        assert replay(path) == kept


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
