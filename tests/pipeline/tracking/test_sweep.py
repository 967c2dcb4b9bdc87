import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline.plumbing.process import Process
from pipeline.tracking import TrackingConfig, sweep_parent
from pipeline.tracking.sweep import close_runs_left_behind

CONFIG = TrackingConfig(experiment="test", system_metrics=False)


def test_parallel_jobs_agree_on_one_parent(root, client):
    together = threading.Barrier(4)

    def job(_: int) -> str:
        together.wait()
        return sweep_parent(CONFIG, root, root / "multirun", "sweep · lr")

    with ThreadPoolExecutor(4) as pool:
        ids = set(pool.map(job, range(4)))
    assert len(ids) == 1
    experiment = client.get_experiment_by_name("test")
    assert [run.info.run_id for run in client.search_runs([experiment.experiment_id])] == list(ids)


def test_the_parent_sums_up_its_jobs(root, client, start):
    parent = sweep_parent(CONFIG, root, root / "multirun", "sweep · lr")
    assert client.get_run(parent).info.status == "RUNNING"
    for name, objective in (("lr 1", 3.0), ("lr 2", 2.0)):
        with start(name, parent_run_id=parent) as job:
            job.log_objective(objective)
    with pytest.raises(ValueError, match="diverged"), start("lr 3", parent_run_id=parent) as failed:
        raise ValueError("diverged")
    stored = client.get_run(parent)
    assert stored.info.status == "FAILED"
    assert client.get_run(failed.run_id).info.status == "FAILED"
    assert stored.data.tags["sweep.finished"] == "2"
    assert stored.data.tags["sweep.failed"] == "1"
    assert stored.data.tags["sweep.best_run"] == job.run_id
    assert stored.data.tags["sweep.best_name"] == "lr 2"
    assert stored.data.metrics["sweep/best_objective"] == 2.0


def test_a_job_that_cannot_make_the_parent_leaves_it_to_the_next(root, tmp_path):
    folder = tmp_path / "multirun"
    with pytest.raises(ConnectionError, match=r"tracking\.uri"):
        sweep_parent(TrackingConfig(uri="http://127.0.0.1:9"), root, folder, "sweep")
    assert sweep_parent(CONFIG, root, folder, "sweep") == (folder / "parent_run.txt").read_text().strip()


def test_a_job_does_not_wait_for_ever(root, monkeypatch):
    monkeypatch.setattr("pipeline.tracking.sweep.WAIT", 0.3)
    (root / "multirun").mkdir()
    (root / "multirun" / "parent_run.txt").write_text("")
    with pytest.raises(TimeoutError, match=r"parent_run\.txt.*Delete the file"):
        sweep_parent(CONFIG, root, root / "multirun", "sweep")


def test_an_interrupted_sweep_closes_what_its_processes_left_behind(root, client, start, monkeypatch):
    folder = root / "multirun"
    parent = sweep_parent(CONFIG, root, folder, "sweep · lr")
    killed = start("lr 1", parent_run_id=parent)
    close_runs_left_behind(CONFIG, root, folder)
    assert client.get_run(killed.run_id).info.status == "RUNNING"
    monkeypatch.setattr(Process, "gone", True)
    close_runs_left_behind(CONFIG, root, folder)
    assert [client.get_run(run).info.status for run in (killed.run_id, parent)] == ["KILLED", "FAILED"]
