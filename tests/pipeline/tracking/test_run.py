import math
import os
import subprocess
import sys
import time

import pytest

from pipeline.tracking import NullRun, RunRequest, TrackedRun, TrackingConfig, start_run
from pipeline.tracking.store import ALIVE_TAG, HOST_TAG, PROCESS_TAG, StoreUnavailableError
from pipeline.tracking.system_metrics import SystemMetrics


def test_a_run_records_everything(start, client, root):
    (root / "card.md").write_text("card")
    (root / "audio").mkdir()
    (root / "audio" / "a.wav").write_text("wave")
    with start("small · mel_rvq 4x256 · espeak", tags={"note": "x"}) as run:
        run.log_parameters({"model": {"n_layers": 2, "names": ["a"]}} | {f"p{i}": i for i in range(150)})
        for step in range(30):
            run.log_metrics({"train/loss": 1 / (step + 1), "moe/load_cv/layer_0": 0.1}, step)
        run.log_artifact(root / "card.md", "cards")
        run.log_artifacts(root / "audio", "audio")
        run.log_dataset("tokens", "0123456789" * 5, "data/prepared", profile='{"tokens": 12}')
        run.set_tags({"gate": "passed"})
    stored = client.get_run(run.run_id)
    assert (stored.info.status, stored.info.run_name) == ("FINISHED", "small · mel_rvq 4x256 · espeak")
    assert stored.data.params["model.n_layers"] == "2"
    assert len(stored.data.params) == 152
    history = client.get_metric_history(run.run_id, "train/loss")
    assert sorted((m.step, m.value) for m in history) == [(step, 1 / (step + 1)) for step in range(30)]
    assert stored.data.tags["note"] == "x"
    assert stored.data.tags["gate"] == "passed"
    assert stored.data.tags["melisma.stage"] == "train"
    assert stored.inputs.dataset_inputs[0].dataset.digest == ("0123456789" * 5)[:36]
    assert [f.path for f in client.list_artifacts(run.run_id, "audio")] == ["audio/a.wav"]
    assert (root / "mlartifacts" / run.run_id / "artifacts" / "cards" / "card.md").read_text() == "card"
    assert not list((root / "outputs").iterdir())
    uri = f"sqlite:///{root}/mlflow.db"
    assert run.reference() == {"run_id": run.run_id, "experiment": "test", "tracking_uri": uri}


def train_until(run: TrackedRun, error: BaseException) -> None:
    with run:
        run.log_metrics({"train/loss": 1.0}, 0)
        raise error


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError("loss"), "FAILED"), (KeyboardInterrupt(), "KILLED"), (SystemExit(1), "KILLED")]
)
def test_the_way_a_run_ends(start, client, error, status):
    run = start()
    with pytest.raises(type(error)):
        train_until(run, error)
    stored = client.get_run(run.run_id)
    assert stored.info.status == status
    assert stored.data.tags["failure"] == f"{type(error).__name__}: {error}"
    assert stored.data.metrics == {"train/loss": 1.0}


def test_numbers_that_are_none(start, client, caplog):
    with start() as run:
        for step in range(3):
            run.log_metrics({"train/loss": math.nan, "eval/loss": math.inf, "val/loss": 1.0}, step)
    metrics = client.get_run(run.run_id).data.metrics
    assert math.isnan(metrics["train/loss"])
    assert math.isnan(metrics["eval/loss"])
    assert metrics["val/loss"] == 1.0
    assert caplog.text.count("The metric eval/loss is inf") == 1


def test_a_child_mirrors_to_a_parent_that_stays_finished(start, client):
    with start() as parent:
        pass
    for loss in (2.0, 3.0):
        with start("evaluation", "evaluate", parent_run_id=parent.run_id) as child:
            child.log_parameters({"temperature": loss})
            child.log_metrics({"eval/loss": loss})
            child.mirror_to_parent({"eval/loss": loss})
        assert client.get_run(child.run_id).data.tags["mlflow.parentRunId"] == parent.run_id
    stored = client.get_run(parent.run_id)
    assert stored.info.status == "FINISHED"
    assert stored.data.metrics == {"eval/loss": 3.0}
    assert stored.data.params == {}


def test_a_failing_child_leaves_its_parent_finished(start, client):
    with start() as parent:
        pass
    with pytest.raises(RuntimeError), start(parent_run_id=parent.run_id) as child:
        raise RuntimeError
    assert client.get_run(child.run_id).info.status == "FAILED"
    assert client.get_run(parent.run_id).info.status == "FINISHED"


def test_runs_of_another_store_are_said_and_left_out(start, client, caplog):
    with start(parent_run_id="0" * 32) as child:
        child.mirror_to_parent({"eval/loss": 1.0})
    assert "mlflow.parentRunId" not in client.get_run(child.run_id).data.tags
    assert "gets no parent" in caplog.text
    with start(resume_run_id="0" * 32) as run:
        pass
    assert client.get_run(run.run_id).info.status == "FINISHED"
    assert "a new run begins" in caplog.text


def test_a_deleted_parent_counts_as_absent(start, client):
    with start() as parent:
        pass
    client.delete_run(parent.run_id)
    with start(parent_run_id=parent.run_id) as child:
        pass
    assert "mlflow.parentRunId" not in client.get_run(child.run_id).data.tags


def test_an_interrupted_run_goes_on(start, client, caplog):
    first = start()
    first.log_parameters({"lr": 0.1, "temperature": 1})
    with pytest.raises(KeyboardInterrupt):
        train_until(first, KeyboardInterrupt())
    with start(resume_run_id=first.run_id) as second:
        assert client.get_run(first.run_id).info.status == "RUNNING"
        second.log_parameters({"lr": 0.1, "temperature": 2, "new": 3})
        second.log_metrics({"train/loss": 1.0}, 1)
    stored = client.get_run(first.run_id)
    assert second.run_id == first.run_id
    assert stored.info.status == "FINISHED"
    assert stored.data.params == {"lr": "0.1", "temperature": "1", "new": "3"}
    assert "keeps its first values of temperature" in caplog.text
    assert [m.step for m in client.get_metric_history(first.run_id, "train/loss")] == [0, 1]


def test_runs_left_behind_are_closed(start, client):
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    with start() as alive:
        experiment = client.get_run(alive.run_id).info.experiment_id
        host = client.get_run(alive.run_id).data.tags[HOST_TAG]
        gone = client.create_run(experiment, tags={HOST_TAG: host, PROCESS_TAG: f"{host} {child.pid} 1.0"})
        elsewhere = client.create_run(experiment, tags={HOST_TAG: "else", PROCESS_TAG: f"else {child.pid} 1.0"})
        with start():
            pass
        states = [client.get_run(run_id).info.status for run_id in (alive.run_id, gone.info.run_id)]
        assert states == ["RUNNING", "KILLED"]
        assert client.get_run(elsewhere.info.run_id).info.status == "RUNNING"
        assert (
            client.get_run(gone.info.run_id).data.tags["failure"].startswith(f"process {child.pid} of {host} is gone")
        )


def test_a_run_of_another_machine_is_closed_after_a_long_silence(start, client):
    with start() as alive:
        experiment = client.get_run(alive.run_id).info.experiment_id
        assert time.time() - float(client.get_run(alive.run_id).data.tags[ALIVE_TAG]) < 60
        of = {HOST_TAG: "else", PROCESS_TAG: "else 1 1.0"}
        silent, heard = (
            client.create_run(experiment, tags={**of, ALIVE_TAG: str(time.time() - silence)}).info.run_id
            for silence in (1000, 100)
        )
        with start():
            pass
        states = [client.get_run(run_id).info.status for run_id in (alive.run_id, silent, heard)]
        assert states == ["RUNNING", "KILLED", "RUNNING"]
        assert "for 17 minutes" in client.get_run(silent).data.tags["failure"]


def test_a_refused_record_takes_nothing_else_with_it(start, client, root, caplog):
    with start() as run:
        run.log_artifact(root / "absent.wav")
        run.log_metrics({"train/loss": 1.0}, 0)
    stored = client.get_run(run.run_id)
    assert (stored.info.status, stored.data.metrics) == ("FINISHED", {"train/loss": 1.0})
    assert "absent.wav is no longer there" in caplog.text


def test_system_metrics_are_sampled_and_do_not_hold_up_the_end(root, client):
    samples: list[tuple[dict[str, float], int]] = []
    monitor = SystemMetrics(lambda sample, step: samples.append((sample, step)), began=time.time() - 60, interval=0.05)
    time.sleep(0.5)
    monitor.stop()
    assert len(samples) > 2
    assert samples[0][0]["system/system_memory_usage_megabytes"] > 0
    assert samples[0][1] in (60, 61)
    with start_run(TrackingConfig(experiment="test"), root, root / "outputs", RunRequest("run", "train")) as run:
        began = time.monotonic()
    assert time.monotonic() - began < 3
    assert client.get_run(run.run_id).info.status == "FINISHED"


def test_the_configured_name_is_for_the_training_only(root, client):
    config = TrackingConfig(experiment="test", run_name="mine", system_metrics=False)
    with start_run(config, root, root / "outputs", RunRequest("made", "train")) as parent:
        pass
    with start_run(
        config, root, root / "outputs", RunRequest("evaluation", "evaluate", parent_run_id=parent.run_id)
    ) as child:
        pass
    assert client.get_run(parent.run_id).info.run_name == "mine"
    assert client.get_run(child.run_id).info.run_name == "evaluation mine"


def test_a_deleted_experiment_is_named(start, client):
    with start() as run:
        pass
    client.delete_experiment(client.get_run(run.run_id).info.experiment_id)
    with pytest.raises(StoreUnavailableError, match=r"tracking\.experiment 'test' was deleted"):
        start()


def test_no_tracking_loads_no_mlflow_and_writes_nothing(tmp_path):
    code = (
        "import sys; from pathlib import Path\n"
        "from pipeline.tracking import RunRequest, TrackingConfig, start_run, sweep_parent\n"
        "config, here = TrackingConfig(kind='none'), Path('.')\n"
        "with start_run(config, here, here / 'outputs', RunRequest('a', 'train')) as run:\n"
        "    run.log_metrics({'train/loss': 1.0}, 0); run.log_parameters({}); run.mirror_to_parent({})\n"
        "assert run.run_id is None and sweep_parent(config, here, here / 'sweep', 'a') is None\n"
        "assert 'mlflow' not in sys.modules\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)
    assert not list(tmp_path.iterdir())


def test_only_the_first_process_of_a_distributed_training_records(start, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert isinstance(start(), NullRun)
