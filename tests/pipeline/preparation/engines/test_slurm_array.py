"""Arrays of jobs: the same bytes as one process writes, and failures that are told of."""

import pickle
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.preparation import encoding
from pipeline.preparation.configuration import SlurmArrayConfig, read_preparation
from pipeline.preparation.engines import slurm_array
from pipeline.preparation.engines.slurm_array import SlurmArrayEngine
from pipeline.preparation.prepare import prepare
from tests.pipeline.preparation.engines.conftest import contents

submitit = pytest.importorskip("submitit")
ARRAY = ["preparation=slurm_array", "preparation.tasks=3", "preparation.cpus_per_task=1"]


def test_jobs_write_what_one_process_does(composed, expected, tmp_path: Path) -> None:
    prepare(composed(*ARRAY, "preparation.executor=debug"), tmp_path / "prepared", tmp_path / "cache")
    assert contents(tmp_path / "prepared") == expected


@pytest.mark.long
def test_jobs_of_this_machine_write_what_one_process_does(composed, expected, tmp_path: Path) -> None:
    prepare(composed(*ARRAY, "preparation.executor=local"), tmp_path / "prepared", tmp_path / "cache")
    assert contents(tmp_path / "prepared") == expected


@dataclass
class FakeJob:
    """A job that is done when it is looked at a second time."""

    work: Any
    numbers: list[int]
    job_id: str
    looks: int = 0
    cancelled: bool = False
    error: Exception | None = None
    paths: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(stderr="7_0_log.err"))

    def done(self) -> bool:
        self.looks += 1
        if self.looks == 2:
            try:
                self.work(self.numbers)
            except OSError as error:
                self.error = error
        return self.looks >= 2

    def exception(self) -> Exception | None:
        return self.error

    def cancel(self, check: bool) -> None:
        self.cancelled = True


class FakeExecutor:
    """Keeps what is submitted to it."""

    def __init__(self) -> None:
        self.jobs: list[FakeJob] = []

    def map_array(self, function: Any, portions: list[list[int]]) -> list[FakeJob]:
        pickled = pickle.dumps(function)
        jobs = [FakeJob(pickle.loads(pickled), portion, f"7_{i}") for i, portion in enumerate(portions)]
        self.jobs += jobs
        return jobs


@pytest.fixture
def executor(monkeypatch: pytest.MonkeyPatch) -> FakeExecutor:
    fake = FakeExecutor()
    monkeypatch.setattr(SlurmArrayEngine, "_executor", lambda _: fake)
    monkeypatch.setattr(slurm_array, "PATIENCE", 0.0)
    return fake


def test_shards_are_dealt_out_and_a_failed_job_costs_its_own(
    composed, expected, executor: FakeExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = encoding.write_shard

    def full(path: Path, *arguments: object) -> None:
        if (path.parent.name, path.stem) == ("train", "shard_00001"):
            raise OSError("No space left on device")
        write(path, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(encoding, "write_shard", full)
        with pytest.raises(
            RuntimeError,
            match=r"1 of 3 jobs failed while encoding; \d of \d+ shards are missing: train/shard_00001.*"
            r"Job 7_1: No space left on device \(its log: 7_0_log.err\)",
        ):
            prepare(composed(*ARRAY), tmp_path / "prepared", tmp_path / "cache")
    numbers = sorted(number for job in executor.jobs[-3:] for number in job.numbers)
    assert numbers == list(range(len(numbers)))
    executor.jobs.clear()
    prepare(composed(*ARRAY), tmp_path / "prepared", tmp_path / "cache")
    assert contents(tmp_path / "prepared") == expected
    # Shard 1 and those that the failed job had before it.
    encoded = [job.numbers for job in executor.jobs if isinstance(job.work.work, encoding.Encoding)]
    assert sum(map(len, encoded)) < len(numbers)
    assert any(1 in own for own in encoded)


def test_an_interruption_cancels_the_jobs(
    composed, executor: FakeExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        prepare(composed(*ARRAY), tmp_path / "prepared", tmp_path / "cache")
    assert executor.jobs
    assert all(job.cancelled for job in executor.jobs)


def test_a_job_that_is_queued_again_does_what_is_left(composed, executor: FakeExecutor, tmp_path: Path) -> None:
    prepare(composed(*ARRAY, "preparation.step=inspect"), tmp_path / "prepared", tmp_path / "cache")
    job = executor.jobs[0]
    queued = job.work.checkpoint(job.numbers)
    assert queued.function is job.work
    assert queued.args == (job.numbers,)


def test_sbatch_is_asked_for_what_the_configuration_says(
    composed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    class Executor:
        def __init__(self, folder: Path, cluster: str) -> None:
            asked["cluster"] = cluster

        def update_parameters(self, **parameters: Any) -> None:
            asked.update(parameters)

    monkeypatch.setattr(submitit, "AutoExecutor", Executor)
    config = read_preparation(
        composed(*ARRAY, "preparation.partition=cpu", "+preparation.parameters.account=speech", "preparation.mem_gb=4")[
            "preparation"
        ]
    ).engine
    assert isinstance(config, SlurmArrayConfig)
    SlurmArrayEngine(config, tmp_path)._executor()
    assert asked == {
        "cluster": "slurm", "name": "prepare-data", "cpus_per_task": 1, "mem_gb": 4, "timeout_min": 240,
        "slurm_partition": "cpu", "slurm_additional_parameters": {"account": "speech"},
    }  # fmt: skip
