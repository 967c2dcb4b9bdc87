"""Shards as tasks of SLURM arrays, on nodes that see the cache and the corpus under the same paths."""

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from pipeline.preparation.configuration import SlurmArrayConfig
from pipeline.preparation.engines.engine import Engine, LocalEngine, progress
from pipeline.preparation.sharded import ShardedWork

log = logging.getLogger(__name__)

# Seconds between two looks at what is written.
PATIENCE = 2.0
# Shards that a message names.
N_NAMED = 5


class SlurmArrayEngine(Engine):
    """Arrays of jobs, each of which computes every n-th shard by processes of its node.

    Args:
        config: how many, and what each asks for.
        folder: where their logs lie, which all nodes see.
    """

    def __init__(self, config: SlurmArrayConfig, folder: Path) -> None:
        self.config, self.folder = config, folder
        # Told before anything is done.
        import_submitit()

    def compute(self, work: ShardedWork, numbers: Sequence[int]) -> None:
        """Submit an array for these shards, and wait for it; an interruption cancels it.

        Raises:
            RuntimeError: jobs failed, and shards are missing.
        """
        n_tasks = min(self.config.tasks, len(numbers))
        portions = [list(numbers[task::n_tasks]) for task in range(n_tasks)]
        jobs = self._executor().map_array(_Portion(work, self.config.cpus_per_task), portions)
        log.info(
            "Submitted %s as %d jobs, the first %s; their logs: %s",
            work.description,
            n_tasks,
            jobs[0].job_id,
            self.folder,
        )
        try:
            with progress(work, numbers) as bar:
                while not all(job.done() for job in jobs):
                    time.sleep(PATIENCE)
                    _show(bar, work, numbers)
                _show(bar, work, numbers)
        except BaseException:
            for job in jobs:
                job.cancel(check=False)
            raise
        self._require_success(work, jobs)

    def _executor(self) -> Any:
        submitit, config = import_submitit(), self.config
        executor = submitit.AutoExecutor(folder=self.folder / "%A", cluster=config.executor)
        executor.update_parameters(
            name="prepare-data",
            cpus_per_task=config.cpus_per_task,
            mem_gb=config.mem_gb,
            timeout_min=config.timeout_min,
        )
        if config.executor == "slurm":
            executor.update_parameters(slurm_additional_parameters=dict(config.parameters))
            if config.partition is not None:
                executor.update_parameters(slurm_partition=config.partition)
        return executor

    def _require_success(self, work: ShardedWork, jobs: Sequence[Any]) -> None:
        failed = [(job, error) for job in jobs if (error := job.exception()) is not None]
        if not failed:
            return
        job, error = failed[0]
        missing = [work.name(number) for number in work.missing()]
        said = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        raise RuntimeError(
            f"{len(failed)} of {len(jobs)} jobs failed while {work.description}; {len(missing)} of {work.n_shards} "
            f"shards are missing{': ' if missing else ''}{'; '.join(missing[:N_NAMED])}. Job {job.job_id}: {said[-1]} "
            f"(its log: {job.paths.stderr}). The same command does what is missing."
        )


class _Portion:
    """What a job of the array does: some of the shards; when its time is up it is queued again for those left."""

    def __init__(self, work: ShardedWork, workers: int) -> None:
        self.work, self.workers = work, workers

    def __call__(self, numbers: Sequence[int]) -> None:
        pending = set(self.work.pending())
        if own := [number for number in numbers if number in pending]:
            LocalEngine(self.workers).compute(self.work, own)

    def checkpoint(self, numbers: Sequence[int]) -> Any:
        """What submitit queues in place of a job that is about to be ended."""
        return import_submitit().helpers.DelayedSubmission(self, numbers)


def import_submitit() -> ModuleType:
    """What submits to SLURM, which is not installed with the rest.

    Raises:
        ModuleNotFoundError: with the command that installs it.
    """
    try:
        import submitit
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "preparation=slurm_array needs submitit, which is not installed; install it: pip install -e .[slurm]"
        ) from error
    return submitit


def _show(bar: Any, work: ShardedWork, numbers: Sequence[int]) -> None:
    written = work.written()
    done = bar.total - sum(work.size(number) for number in numbers if number not in written)
    bar.update(max(0, done - bar.n))
