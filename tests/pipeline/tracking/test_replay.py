import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator

import pytest
from mlflow.server.constants import (
    ARTIFACT_ROOT_ENV_VAR,
    ARTIFACTS_DESTINATION_ENV_VAR,
    BACKEND_STORE_URI_ENV_VAR,
    SERVE_ARTIFACTS_ENV_VAR,
)
from mlflow.tracking import MlflowClient

from pipeline.tracking import RunRequest, TrackingConfig, start_run
from pipeline.tracking.replay import main

# Seconds that are far more than anything takes here.
PATIENCE = 240


class MlflowServer:
    """A real server: the process that `mlflow server` starts, without the seconds its command line takes by itself."""

    def __init__(self, root):
        # Whichever is free the first time, and that one again.
        self._port = 0
        self._environment = os.environ | {
            BACKEND_STORE_URI_ENV_VAR: f"sqlite:///{root}/mlflow.db",
            ARTIFACT_ROOT_ENV_VAR: "mlflow-artifacts:/",
            ARTIFACTS_DESTINATION_ENV_VAR: str(root / "served"),
            SERVE_ARTIFACTS_ENV_VAR: "true",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        self._process = None

    @property
    def uri(self):
        return f"http://127.0.0.1:{self._port}"

    def start(self):
        with socket.create_server(("127.0.0.1", self._port)) as listening:
            self._port = listening.getsockname()[1]
            handed_on = listening.fileno()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "uvicorn", "mlflow.server.fastapi_app:app", "--fd", str(handed_on)],
                env=self._environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[handed_on],
            )
        with urllib.request.urlopen(f"{self.uri}/health", timeout=PATIENCE):
            return

    def signal(self, number):
        self._process.send_signal(number)

    def kill(self):
        if self._process is not None:
            self.signal(signal.SIGKILL)
            self._process.wait()
            self._process = None


@pytest.fixture
def server(root) -> Iterator[MlflowServer]:
    server = MlflowServer(root)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def patient(monkeypatch):
    """Nothing is refused for a machine that is busy."""
    monkeypatch.setattr("pipeline.tracking.reachability.PATIENCE", PATIENCE)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", f"{PATIENCE}")


def until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


def kept_records(journal):
    """What a journal holds behind the line that names its store."""
    return journal.read_text().splitlines()[1:]


@pytest.mark.usefixtures("patient")
def test_a_server_that_stops_and_dies_loses_nothing(root, server, caplog, capsys, monkeypatch):
    """First it hangs and comes back by itself; then it is killed, and the run ends without it."""
    caplog.set_level("INFO")
    (root / "a.wav").write_text("wave")
    outputs = root / "outputs"
    journal, files = outputs / "tracking_journal.jsonl", outputs / "tracking_files.jsonl"
    config = TrackingConfig(uri=server.uri, experiment="test", system_metrics=False)
    with start_run(config, root, outputs, RunRequest("run", "train")) as run:
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
        run.log_metrics({"train/loss": 0.0}, 0)
        server.signal(signal.SIGSTOP)
        run.log_metrics({"train/loss": 1.0, "odd": float("nan")}, 1)
        until(lambda: "is away" in caplog.text)
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", f"{PATIENCE}")
        server.signal(signal.SIGCONT)
        until(lambda: not kept_records(journal))
        assert "is back" in caplog.text
        server.kill()
        run.log_metrics({"train/loss": 2.0}, 2)
        run.log_parameters({"lr": 0.1})
        run.log_artifact(root / "a.wav", "audio")
    # Signs of life, too, where it has taken minutes.
    n = len(kept_records(journal))
    assert n >= 3
    assert f"{n} records kept in {journal}" in caplog.text
    assert f"1 records kept in {files}" in caplog.text
    assert main([str(outputs)]) == 1
    assert "tracking.uri" in capsys.readouterr().err

    server.start()
    assert main([str(outputs)]) == 0
    assert f"{n} records delivered; {journal} is removed" in capsys.readouterr().out
    assert main([str(outputs)]) == 0
    assert "Nothing was kept" in capsys.readouterr().out
    client = MlflowClient(server.uri)
    stored = client.get_run(run.run_id)
    assert stored.info.status == "FINISHED"
    history = client.get_metric_history(run.run_id, "train/loss")
    assert [(m.step, m.value) for m in history] == [(0, 0.0), (1, 1.0), (2, 2.0)]
    assert stored.data.metrics["odd"] != stored.data.metrics["odd"]
    assert stored.data.params == {"lr": "0.1"}
    assert [f.path for f in client.list_artifacts(run.run_id, "audio")] == ["audio/a.wav"]


@pytest.mark.usefixtures("patient")
def test_a_run_that_a_server_took_leads_to_its_page_without_the_password(root, server, caplog, capsys):
    caplog.set_level("INFO")
    config = TrackingConfig(uri=server.uri.replace("://", "://bob:hunter2plus@"), experiment="test")
    with start_run(config, root, root / "outputs", RunRequest("run", "train")) as run:
        run.log_metrics({"train/loss": 0.0}, 0)
    assert f"{server.uri}/#/experiments/1/runs/{run.run_id}" in caplog.text
    assert "hunter2plus" not in caplog.text + capsys.readouterr().out


def test_other_files_are_no_journal(tmp_path, capsys):
    (tmp_path / "history.jsonl").write_text('{"step": 0}\n')
    assert main([str(tmp_path / "history.jsonl")]) == 1
    assert "is not a tracking journal" in capsys.readouterr().err


def test_a_run_that_goes_on_keeps_its_journal(start, root, capsys):
    code = (
        "import sys; from pathlib import Path; from pipeline.tracking.journal import Journal\n"
        "Journal(Path(sys.argv[1]), 'sqlite:///x.db'); print(flush=True); input()"
    )
    path = root / "journal.jsonl"
    owner = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    owner.stdout.readline()
    assert main([str(path)]) == 1
    assert "wait until it has ended" in capsys.readouterr().err
    owner.communicate("\n")
