"""Trainings and sweeps under SLURM itself: `make test-slurm`. Skipped where it is not installed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient
from mlflow.entities import Run

from tests.drills.slurm_cluster import INSTALL, SlurmCluster, missing_programs
from tests.prepared_tokens import write_prepared_tokens
from tests.repository_copy import RepositoryCopy

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(bool(missing_programs()), reason=f"SLURM is not on this machine: {INSTALL}"),
]

TRAINING = [
    "model=tiny", "trainer.sequence_length=32", "trainer.val_every_steps=100", "trainer.log_every_steps=1",
    "trainer.checkpoint_every_steps=1000", "strategy=expert_parallel", "strategy.ep=2", "trainer.batch_size=2",
]  # fmt: skip
SWEEP = [
    "-m", "cluster=slurm", "trainer=default", "hydra.launcher.gpus_per_node=null", "hydra.launcher.tasks_per_node=2",
    "hydra.launcher.cpus_per_task=1", "hydra.launcher.timeout_min=60",
]  # fmt: skip
# Enough of them to interrupt: 5 to 30 a second.
STEPS = 400
# Seconds after which something does not come any more: a busy machine takes a minute to start a training.
PATIENCE = 1200.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    cluster = SlurmCluster(tmp_path_factory.mktemp("slurm"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture
def training(tmp_path: Path) -> Callable[..., list[str]]:
    """The words of the command that trains in this test's folder."""
    write_prepared_tokens(tmp_path / "prepared")

    def words(*more: str, outputs: str = "outputs") -> list[str]:
        places = [f"paths.prepared={tmp_path}/prepared", f"tracking.uri=sqlite:///{tmp_path}/mlflow.db"]
        if "-m" in more:
            places.append(f"hydra.sweep.dir={tmp_path}/{outputs}")
        else:
            places.append(f"paths.outputs={tmp_path}/{outputs}")
        return [sys.executable, "-m", "pipeline.train", *more, *TRAINING, *places]

    return words


def until(condition: Callable[[], bool], tell: Callable[[], str], seconds: float = PATIENCE) -> None:
    """Wait for a state, however busy the machine is; `tell` says what there is where it does not come."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            pytest.fail(f"Waited in vain for {seconds:.0f} s. {tell()}")
        time.sleep(0.5)


def steps(folder: Path) -> list[int]:
    """The steps that the training below a folder has logged so far."""
    histories = list(folder.glob("resume/*/history.jsonl"))
    rows = [json.loads(line) for line in histories[0].read_text().splitlines()] if histories else []
    return [row["step"] for row in rows if "train/loss" in row]


def runs(store: Path) -> list[Run]:
    """Those of trainings, without those of sweeps."""
    client = MlflowClient(f"sqlite:///{store}")
    found = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    return [run for run in found if "train/loss" in run.data.metrics]


def started(cluster: SlurmCluster, words: list[str], output: Path) -> subprocess.Popen[bytes]:
    with open(output, "wb") as file:
        return subprocess.Popen(words, env=cluster.environment, stdout=file, stderr=subprocess.STDOUT)


def slurm_job(folder: Path) -> str:
    return str(json.loads((folder / "slurm.json").read_text())["job"])


def test_a_preempted_job_of_a_sweep_ends_as_one_that_was_not(
    cluster: SlurmCluster, training: Callable[..., list[str]], tmp_path: Path
) -> None:
    """Two tasks each, side by side; one is warned, as before its time is up, and queued again."""
    sweep = [*SWEEP, f"trainer.max_steps={STEPS}", "seed=3"]
    drivers = [
        started(cluster, training(*sweep, outputs=name), tmp_path / f"{name}.txt") for name in ("whole", "interrupted")
    ]
    until(lambda: len(steps(tmp_path / "interrupted" / "0")) > 20, (tmp_path / "interrupted.txt").read_text)
    job = slurm_job(tmp_path / "interrupted" / "0")
    cluster.run("scancel", "--signal=USR2", job)
    assert [driver.wait(PATIENCE) for driver in drivers] == [0, 0], (tmp_path / "interrupted.txt").read_text()
    (log,) = (tmp_path / "interrupted" / ".submitit").glob(f"{job}/*_0_log.err")
    printed = log.read_text() + log.with_suffix(".out").read_text()
    assert "Told to leave: saved step" in printed
    assert "Going on with the interrupted training at step" in printed
    whole, interrupted = (tmp_path / name / "0" / "train" for name in ("whole", "interrupted"))
    for name in ("history.csv", "validation.csv"):
        assert (whole / name).read_text() == (interrupted / name).read_text()
    assert_equal_weights(whole / "checkpoint.ckpt", interrupted / "checkpoint.ckpt")
    # Each in one run of its own.
    assert [run.info.status for run in runs(tmp_path / "mlflow.db")] == ["FINISHED"] * 2


def assert_equal_weights(first: Path, second: Path) -> None:
    if first.is_file():
        left, right = (torch.load(path, weights_only=True)["state_dict"] for path in (first, second))
        torch.testing.assert_close(left, right, rtol=0, atol=0)
        return
    left, right = (sorted(path.glob("*.distcp")) for path in (first, second))
    assert [path.name for path in left] == [path.name for path in right]
    assert [path.read_bytes() for path in left] == [path.read_bytes() for path in right]


def test_the_same_command_waits_for_what_is_queued_and_tells_of_what_was_cancelled(
    cluster: SlurmCluster, training: Callable[..., list[str]], tmp_path: Path
) -> None:
    command = training(*SWEEP, f"trainer.max_steps={STEPS}", "seed=1,2", outputs="sweep")
    jobs = [tmp_path / "sweep" / number for number in "01"]
    first, second = tmp_path / "first.txt", tmp_path / "second.txt"
    with cluster.drained():
        driver = started(cluster, command, first)
        until(lambda: "0 of 2 jobs have ended; 2 pending" in first.read_text(), first.read_text)
        driver.send_signal(signal.SIGINT)
        assert driver.wait(PATIENCE) == 130
        numbers = [slurm_job(job) for job in jobs]
        assert f"the same command waits for them, `scancel {' '.join(numbers)}`" in first.read_text()
        driver = started(cluster, command, second)
        until(lambda: "In SLURM's queue from before: 0 (" in second.read_text(), second.read_text)
    until(lambda: len(steps(jobs[1])) > 20, second.read_text)
    cluster.run("scancel", numbers[1])
    assert driver.wait(PATIENCE) == 2, second.read_text()
    said = second.read_text()
    assert "Job 1 (seed=2): SLURM's job" in said
    assert "it was cancelled" in said
    assert "1 of 2 jobs finished, 1 failed" in said
    assert "Traceback" not in said
    assert slurm_job(jobs[0]) == numbers[0]

    said = cluster.run(*command)
    assert "1 of 2 jobs are in" in said
    assert "2 of 2 jobs finished." in said
    (log,) = (tmp_path / "sweep" / ".submitit").glob(f"{slurm_job(jobs[1])}/*_0_log.err")
    assert "Going on with the interrupted training at step" in log.read_text() + log.with_suffix(".out").read_text()


def test_a_batch_job_outlives_its_requeue_another_job_and_its_time(
    cluster: SlurmCluster, training: Callable[..., list[str]], tmp_path: Path
) -> None:
    """With `srun --ntasks` in a script of the user's own, which asks for a warning of 20 s."""
    script, output = tmp_path / "train.sh", tmp_path / "said"
    words = " ".join(training("trainer.max_steps=1000000"))
    script.write_text(f"#!/bin/bash\nsrun --ntasks 2 {words}\n")
    options = ("--parsable", "--requeue", "--open-mode=append", "--nodes=1", "--ntasks=2", f"--output={output}")
    job = cluster.run("sbatch", *options, "--signal=USR1@20", "--time=600", str(script)).strip()

    def said(times: int, sentence: str) -> None:
        until(lambda: output.exists() and output.read_text().count(sentence) == times, tell)

    def tell() -> str:
        printed = output.read_text()[-4000:] if output.exists() else "nothing"
        return f"{cluster.state_of(job)} It has printed: {printed}"

    until(lambda: len(steps(tmp_path / "outputs")) > 20, tell)
    cluster.run("scontrol", "requeue", job)
    said(1, "Going on")
    reached = steps(tmp_path / "outputs")
    assert reached == list(range(len(reached)))
    cluster.run("sbatch", "--partition=urgent", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=sleep 1")
    said(2, "Going on")
    # From now on: how long it has taken to come here is the machine's business.
    cluster.run("scontrol", "update", f"JobId={job}", f"TimeLimit={cluster.minutes_of(job) + 2}")
    said(3, "Told to leave: saved step")
    cluster.run("scontrol", "update", f"JobId={job}", "TimeLimit=600")
    said(3, "Going on")
    assert "SLURM does not queue the job again" not in output.read_text()
    cluster.run("scancel", job)
    until(lambda: not cluster.is_queued(job), tell)
    # A job that is cancelled saves too, and stays away.
    said(4, "Told to leave: saved step")
    assert [run.info.status for run in runs(tmp_path / "mlflow.db")] == ["KILLED"]


def test_a_sweep_that_slurm_does_not_take_is_told_in_a_sentence(
    cluster: SlurmCluster, training: Callable[..., list[str]]
) -> None:
    printed = cluster.run(*training(*SWEEP, "hydra.launcher.partition=nowhere"), check=False)
    assert "ERROR: SLURM takes no jobs: invalid partition specified: nowhere" in printed
    assert "Traceback" not in printed


def test_an_experiment_of_dvcs_runs_inside_an_allocation(cluster: SlurmCluster, tmp_path: Path) -> None:
    """As if SLURM were not there: `srun` did not start it."""
    copy = RepositoryCopy(tmp_path)
    os.environ["SLURM_CONF"] = cluster.environment["SLURM_CONF"]
    try:
        copy.run("salloc", "--quiet", "--ntasks=2", "dvc", "exp", "run", "-S", "trainer.max_steps=4", "train")
    finally:
        del os.environ["SLURM_CONF"]
    assert (tmp_path / "outputs" / "train" / "metrics.json").exists()
