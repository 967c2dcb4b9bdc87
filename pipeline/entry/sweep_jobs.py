"""What becomes of a sweep's jobs: said when it happens, kept beside their results, and summed up at the end."""

import atexit
import logging
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from pipeline.configuration.command_line import swept_overrides, write_shared_overrides
from pipeline.entry.ending import JobFailedError
from pipeline.entry.errors import sentence_of
from pipeline.plumbing.files import read_json, write_json, write_yaml
from pipeline.plumbing.redaction import redacted, redacted_values

log = logging.getLogger(__name__)

JOB, CONFIGURATION = "job.json", "config.yaml"


@dataclass(frozen=True)
class Job:
    """A job that has ended.

    Attributes:
        number: its place in the sweep.
        overrides: what it was asked for that others were not.
        folder: where its results lie.
        objective: what sweeps minimise; None of a stage that has none.
        failure: why it failed; empty if it did not.
        run_id: its tracked run, if it has one.
    """

    number: int
    overrides: str
    folder: str
    objective: float | None
    failure: str
    run_id: str | None

    def __str__(self) -> str:
        return f"Job {self.number} ({self.overrides})" if self.overrides else f"Job {self.number}"


class SweepJobs(Callback):
    """Keeps what each job was asked for and what became of it in its folder, and names the best job at the end."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Have the jobs summed up, also where Hydra ends with the error of one of them."""
        write_shared_overrides(config.hydra)
        folder = Path(config.hydra.sweep.dir).resolve()
        atexit.register(say_summary, folder)

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Write the job's composed configuration."""
        if _is_written_here(config):
            values = OmegaConf.to_container(config, resolve=False)
            assert isinstance(values, dict)
            values.pop("hydra")
            write_yaml(Path(config.hydra.runtime.output_dir, CONFIGURATION), redacted_values(values))

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Say and keep how the job ended; a training that failed before it had a run gets one all the same."""
        if not _is_written_here(config):
            return
        error = job_return._return_value if job_return.status == JobStatus.FAILED else None
        if isinstance(error, JobFailedError):
            error = error.__cause__
        job = _describe(config, None if error else job_return.return_value, error)
        if isinstance(error, Exception):
            if config.hydra.job.name == "train":
                _record_failure(config, error)
        elif job.objective is not None:
            log.info("%s: %.4f, in %s.", job, job.objective, _shown(job.folder))
        write_json(Path(job.folder, JOB), asdict(job))


def say_summary(folder: Path) -> None:
    """Say how the jobs of a sweep ended, and name the best one."""
    jobs = sorted((Job(**read_json(path)) for path in folder.glob(f"*/{JOB}")), key=lambda job: job.number)
    if jobs:
        print(summary(jobs))


def summary(jobs: list[Job]) -> str:
    """How jobs ended, in a few lines, the best one last."""
    failed = [job for job in jobs if job.failure]
    lines = [
        f"{len(jobs) - len(failed)} of {len(jobs)} jobs finished" + (f", {len(failed)} failed:" if failed else ".")
    ]
    lines += [f"  {job}: {job.failure}" for job in failed]
    measured = [(job.objective, job.number, job) for job in jobs if job.objective is not None]
    measured = [entry for entry in measured if math.isfinite(entry[0])]
    if measured:
        objective, _, best = min(measured)
        run = f", run {best.run_id}" if best.run_id else ""
        lines.append(f"Best: {best}, {objective:.4f}, in {_shown(best.folder)}{run}.")
    return "\n".join(lines)


def _describe(config: DictConfig, value: Any, error: BaseException | None) -> Job:
    hydra = config.hydra
    failure = redacted((sentence_of(error) or f"{type(error).__name__}: {error}") if error else "")
    run = Path(hydra.runtime.output_dir, "train", "run.json")
    return Job(
        number=int(hydra.job.num),
        overrides=redacted(swept_overrides(hydra)),
        folder=str(hydra.runtime.output_dir),
        objective=float(value) if isinstance(value, int | float) else None,
        failure=" ".join(failure.split()),
        run_id=read_json(run)["run_id"] if run.exists() and not failure else None,
    )


def _record_failure(config: DictConfig, error: Exception) -> None:
    """Leave a run that failed, as a child of the sweep's, unless the training had one already."""
    from pipeline.plumbing.stage_runs import failed_training_run, has_a_run

    if has_a_run(error):
        return
    values = OmegaConf.to_container(config, resolve=False)
    assert isinstance(values, dict)
    values.pop("hydra")
    try:
        folder = Path(config.hydra.runtime.output_dir)
        failed_training_run({str(key): value for key, value in values.items()}, folder, error)
    except (OSError, ValueError) as reason:
        log.warning("That is recorded in no run: %s", reason)


def _is_written_here(config: DictConfig) -> bool:
    """Whether this is the process of a job of a multirun that writes; a launcher may start many for each job."""
    from pipeline.tracking.start import is_first_process

    return config.hydra.mode == RunMode.MULTIRUN and is_first_process()


def _shown(folder: str) -> str:
    """A folder as one would type it."""
    path, here = Path(folder), Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else folder
