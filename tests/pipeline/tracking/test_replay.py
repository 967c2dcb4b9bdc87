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

from pipeline.tracking import TrackingConfig, start_run
from pipeline.tracking.replay import main


class MlflowServer:
    """A real server: the process that `mlflow server` starts, without the seconds its command line takes by itself."""

    def __init__(self, root, port):
        self.uri = f"http://127.0.0.1:{port}"
        self._command = [sys.executable, "-m", "uvicorn", "mlflow.server.fastapi_app:app", "--port", str(port)]
        self._environment = os.environ | {
            BACKEND_STORE_URI_ENV_VAR: f"sqlite:///{root}/mlflow.db",
            ARTIFACT_ROOT_ENV_VAR: "mlflow-artifacts:/",
            ARTIFACTS_DESTINATION_ENV_VAR: str(root / "served"),
            SERVE_ARTIFACTS_ENV_VAR: "true",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        self._process = None

    def start(self):
        self._process = subprocess.Popen(
            self._command, env=self._environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for _ in range(900):
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=1):
                    return
            except OSError:
                time.sleep(0.1)
        raise TimeoutError("the MLflow server did not come up")

    def signal(self, number):
        self._process.send_signal(number)

    def kill(self):
        if self._process is not None:
            self.signal(signal.SIGKILL)
            self._process.wait()
            self._process = None


@pytest.fixture
def server(root) -> Iterator[MlflowServer]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = MlflowServer(root, port)
    server.start()
    yield server
    server.kill()


def wait_for(text, caplog):
    for _ in range(200):
        if text in caplog.text:
            return
        time.sleep(0.1)
    raise AssertionError(f"{text!r} was never logged")


def test_a_server_that_stops_and_dies_loses_nothing(root, server, caplog, capsys):
    """First it hangs and comes back by itself; then it is killed, and the run ends without it."""
    caplog.set_level("INFO")
    (root / "a.wav").write_text("wave")
    outputs = root / "outputs"
    config = TrackingConfig(uri=server.uri, experiment="test", system_metrics=False)
    with start_run(config, root, outputs, "run", "train") as run:
        run.log_metrics({"train/loss": 0.0}, 0)
        server.signal(signal.SIGSTOP)
        run.log_metrics({"train/loss": 1.0, "odd": float("nan")}, 1)
        wait_for("is away", caplog)
        server.signal(signal.SIGCONT)
        wait_for("is back", caplog)
        server.kill()
        run.log_metrics({"train/loss": 2.0}, 2)
        run.log_parameters({"lr": 0.1})
        run.log_artifact(root / "a.wav", "audio")
    journal, files = outputs / "tracking_journal.jsonl", outputs / "tracking_files.jsonl"
    assert caplog.text.count("is away") == 3
    assert f"3 records kept in {journal}" in caplog.text
    assert f"1 records kept in {files}" in caplog.text
    assert main([str(outputs)]) == 1
    assert "tracking.uri" in capsys.readouterr().err

    server.start()
    assert main([str(outputs)]) == 0
    assert "3 records delivered" in capsys.readouterr().out
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
