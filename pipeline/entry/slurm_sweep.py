"""The jobs of a sweep in SLURM's queue: submitted, or found there from before, and waited for.

A job outlives the process that submitted it. So the folder of each keeps the number that SLURM knows it by, and the
same command waits for those that are still in the queue instead of submitting them twice.
"""

import logging
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher

from pipeline.configuration.multirun import own_overrides
from pipeline.entry.ending import JobFailedError
from pipeline.entry.slurm_queue import SlurmError, counted, ending, queued, said_by
from pipeline.entry.sweep_jobs import written_values
from pipeline.plumbing.files import read_json, write_json
from pipeline.plumbing.fingerprint import fingerprint
from pipeline.plumbing.redaction import redacted
from pipeline.sweeping.job import Job

if TYPE_CHECKING:
    from submitit import Job as Submitted

log = logging.getLogger(__name__)

QUEUED = "slurm.json"
# Seconds from one look at the queue to the next: at first, and at most.
FIRST_LOOK, RAREST_LOOK = 2.0, 30.0
# How long a shared file system may take to show what a job that has left the queue has written.
LAG = 20.0


@dataclass(frozen=True)
class Queued:
    """A job of a sweep as SLURM knows it.

    Attributes:
        job: SLURM's number, with that of the array's element.
        settings: a digest of what it was composed of.
        folder: submitit's, with places for the number.
        n_tasks: its processes.
    """

    job: str
    settings: str
    folder: str
    n_tasks: int

    def handle(self) -> "Submitted[JobReturn]":
        """What submitit reads results by: that of the first process."""
        from submitit import SlurmJob

        return SlurmJob(folder=self.folder, job_id=self.job, tasks=list(range(self.n_tasks))).task(0)


@dataclass(frozen=True)
class Wanted:
    """A job that is to run.

    Attributes:
        number: its place in the sweep.
        overrides: all that it is composed of.
        own: those that tell it from the others, without secrets.
        folder: where its results will lie.
        settings: a digest of what it is composed of.
    """

    number: int
    overrides: list[str]
    own: tuple[str, ...]
    folder: Path
    settings: str


def launch_in_queue(launcher: Launcher, job_overrides: Sequence[Sequence[str]], first: int) -> list[JobReturn]:
    """Submit the jobs that are not in the queue, and wait for all.

    Args:
        launcher: of submitit, which calls itself on the machines that SLURM chooses.
        job_overrides: of each job.
        first: the number of the first, where their overrides name no folder.

    Raises:
        ValueError: SLURM takes no such job, or has it in its queue with other settings.
    """
    wanted = [_wanted(launcher, list(overrides), first + i) for i, overrides in enumerate(job_overrides)]
    try:
        known, states = _recorded(wanted), queued()
        under_way = {job.number: known[job.number] for job in wanted if job.number in known}
        under_way = {number: job for number, job in under_way.items() if job.job in states}
        new = [job for job in wanted if job.number not in under_way]
        _require_same_settings(wanted, under_way)
        if under_way:
            shown = ", ".join(f"{number} ({job.job})" for number, job in under_way.items())
            log.info("In SLURM's queue from before: %s.", shown)
        under_way |= _submit(launcher, new) if new else {}
    except SlurmError as error:
        raise ValueError(f"SLURM takes no jobs: {error}") from error
    try:
        results = _wait({job.number: job for job in wanted}, under_way)
    except KeyboardInterrupt:
        ids = " ".join(job.job for job in under_way.values())
        log.warning("The jobs stay in SLURM's queue: the same command waits for them, `scancel %s` ends them.", ids)
        raise
    return [results[job.number] for job in wanted]


def _wanted(launcher: Any, overrides: list[str], number: int) -> Wanted:
    composed = launcher.hydra_context.config_loader.load_sweep_config(launcher.config, overrides)
    subdir = str(composed.hydra.sweep.subdir)
    return Wanted(
        int(subdir) if subdir.isdecimal() else number,
        overrides,
        tuple(redacted(override) for override in own_overrides(composed.hydra)),
        Path(str(composed.hydra.sweep.dir), subdir),
        fingerprint(written_values(composed)),
    )


def _recorded(wanted: Sequence[Wanted]) -> dict[int, Queued]:
    """What was noted when jobs were submitted before."""
    paths = {job.number: job.folder / QUEUED for job in wanted}
    return {number: Queued(**read_json(path)) for number, path in paths.items() if path.is_file()}


def _require_same_settings(wanted: Sequence[Wanted], under_way: Mapping[int, Queued]) -> None:
    for job in wanted:
        if job.number in under_way and under_way[job.number].settings != job.settings:
            known = under_way[job.number].job
            raise ValueError(
                f"Job {job.number} is in SLURM's queue with other settings, as {known}; wait for it, or end it with "
                f"`scancel {known}`."
            )


def _submit(launcher: Any, jobs: Sequence[Wanted]) -> dict[int, Queued]:
    """Put jobs into the queue, several as one array.

    Raises:
        SlurmError: with what sbatch says.
    """
    from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf
    from submitit import AutoExecutor
    from submitit.core.utils import FailedJobError

    params = dict(launcher.params)
    folder = str(Path(params.pop("submitit_folder")).absolute())
    executor = AutoExecutor(folder, cluster="slurm", slurm_max_num_timeout=params.pop("max_num_timeout"))
    shared = {field.name for field in fields(BaseQueueConf)}
    executor.update_parameters(**{name if name in shared else f"slurm_{name}": params[name] for name in params})
    calls = [(job.overrides, "hydra.sweep.dir", job.number, "", Singleton.get_state()) for job in jobs]
    try:
        submitted = executor.map_array(launcher, *zip(*calls, strict=True))
    except FailedJobError as error:
        raise SlurmError(said_by(str(error))) from error
    noted = {}
    for job, handle in zip(jobs, submitted, strict=True):
        noted[job.number] = Queued(handle.job_id, job.settings, folder, handle.num_tasks)
        job.folder.mkdir(parents=True, exist_ok=True)
        write_json(job.folder / QUEUED, asdict(noted[job.number]))
    shown = ", ".join(f"{job.number} ({noted[job.number].job}: {', '.join(job.own)})" for job in jobs)
    log.info("Submitted: %s. What they print is in %s.", shown, folder.replace("%j", "…"))
    return noted


def _wait(wanted: Mapping[int, Wanted], jobs: Mapping[int, Queued]) -> dict[int, JobReturn]:
    """The results of all jobs, once there are; a job that has left the queue without one has failed."""
    results, gone = dict[int, JobReturn](), dict[int, float]()
    handles = {number: job.handle() for number, job in jobs.items()}
    interval, said = FIRST_LOOK, ""
    while True:
        states = _look()
        for number in jobs.keys() - results.keys():
            result = _result(wanted[number], handles[number])
            if result is None and states is not None and jobs[number].job not in states:
                left = gone.setdefault(number, time.monotonic())
                if time.monotonic() - left >= LAG:
                    result = _failed(wanted[number], f"{_as_slurm(handles[number])}: {ending(jobs[number].job)}")
            if result is not None:
                results[number] = result
        if len(results) == len(jobs):
            return results
        now = counted(states or {}, (jobs[number].job for number in jobs.keys() - results.keys()))
        if now and now != said:
            said = now
            log.info("%d of %d jobs have ended; %s.", len(results), len(jobs), now)
        time.sleep(interval)
        interval = min(1.2 * interval, RAREST_LOOK)


def _look() -> dict[str, str] | None:
    """The queue; None where SLURM does not answer now."""
    try:
        return queued()
    except SlurmError as error:
        log.warning("SLURM does not answer: %s Asking again.", error)
        return None


def _result(job: Wanted, handle: "Submitted[JobReturn]") -> JobReturn | None:
    """What a job has left, if it has."""
    from submitit.core.utils import pickle_load

    # A shared file system shows what has come into a folder when it is asked for the folder.
    with suppress(OSError):
        os.listdir(handle.paths.folder)
    if not handle.paths.result_pickle.exists():
        return None
    outcome, result = pickle_load(handle.paths.result_pickle)
    if outcome == "success":
        return result
    return _failed(job, f"{_as_slurm(handle)}: {str(result).strip().splitlines()[-1]}")


def _failed(job: Wanted, sentence: str) -> JobReturn:
    """Keep and tell what no process of the job's could."""
    ended = Job(job.number, job.own, str(job.folder), None, redacted(sentence), None)
    log.error("%s: %s", ended, sentence)
    ended.write()
    failure = JobFailedError(", ".join(job.own), sentence)
    return JobReturn(overrides=job.overrides, status=JobStatus.FAILED, _return_value=failure)


def _as_slurm(handle: "Submitted[JobReturn]") -> str:
    return f"SLURM's job {handle.job_id} (it prints to {handle.paths.stderr})"
