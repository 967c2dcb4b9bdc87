"""What becomes of a sweep's jobs: said when it happens, kept beside their results, and summed up at the end."""

import atexit
import logging
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from pipeline.configuration.command_line import shown
from pipeline.configuration.multirun import own_overrides
from pipeline.entry.ending import JobFailedError
from pipeline.entry.errors import sentence_of
from pipeline.plumbing.files import read_json, write_yaml
from pipeline.plumbing.redaction import redacted, redacted_values
from pipeline.sweeping.job import CONFIGURATION, Job, read_jobs
from pipeline.sweeping.record import read_record

log = logging.getLogger(__name__)


class SweepJobs(Callback):
    """Keeps what each job was asked for and what became of it in its folder, and names the best job at the end."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Have the jobs summed up, also where Hydra ends with the error of one of them."""
        folder = Path(config.hydra.sweep.dir).resolve()
        atexit.register(say_summary, folder)

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Write the job's composed configuration."""
        if _is_written_here(config):
            write_yaml(Path(config.hydra.runtime.output_dir, CONFIGURATION), written_values(config))

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
            log.info("%s: %.4f, in %s.", job, job.objective, shown(Path(job.folder)))
        job.write()


def written_values(config: DictConfig) -> dict[str, Any]:
    """The configuration of a job as its folder keeps it: what was composed, without Hydra's own part and secrets."""
    values = OmegaConf.to_container(config, resolve=False)
    assert isinstance(values, dict)
    values.pop("hydra", None)
    return dict(redacted_values({str(key): value for key, value in values.items()}))


def say_summary(folder: Path) -> None:
    """Say how the jobs of a sweep ended, and name the best one; of one that was refused there is nothing to say."""
    jobs, record = read_jobs(folder), read_record(folder)
    if not any(path.is_dir() for path in folder.iterdir()):
        return
    if jobs:
        print(summary(jobs, record.sign if record else 1))
    if record and (n_open := len(record.jobs) - len(jobs)) > 0:
        print(f"{n_open} of {len(record.jobs)} jobs have not ended; the same command goes on with them.")


def summary(jobs: list[Job], sign: int = 1) -> str:
    """How jobs ended, in a few lines, the best one last.

    Args:
        jobs: that have ended.
        sign: 1 where a small objective is good, -1 where a large one is.
    """
    # SciPy, which no other command needs to begin.
    from pipeline.sweeping.grouping import best_job, grouped

    failed = [job for job in jobs if job.failure]
    lines = [
        f"{len(jobs) - len(failed)} of {len(jobs)} jobs finished" + (f", {len(failed)} failed:" if failed else ".")
    ]
    lines += [f"  {job}: {job.failure}" for job in failed]
    groups = grouped(jobs, sign)
    best = groups[0]
    if len(best.jobs) > 1:
        mean = best.objective
        lines.append(
            f"Best of {sum(bool(group.jobs) for group in groups)} configurations: {best.title}, {mean.value:.4f} "
            f"({mean.low:.4f} to {mean.high:.4f}, {len(best.jobs)} seeds)."
        )
    if best.jobs:
        job = best_job(best, sign)
        run = f", run {job.run_id}" if job.run_id else ""
        lines.append(f"Best: {job}, {job.objective:.4f}, in {shown(Path(job.folder))}{run}.")
    return "\n".join(lines)


def _describe(config: DictConfig, value: Any, error: BaseException | None) -> Job:
    hydra = config.hydra
    failure = redacted((sentence_of(error) or f"{type(error).__name__}: {error}") if error else "")
    run = Path(hydra.runtime.output_dir, "train", "run.json")
    return Job(
        number=_number(hydra),
        overrides=tuple(redacted(override) for override in own_overrides(hydra)),
        folder=str(hydra.runtime.output_dir),
        objective=float(value) if isinstance(value, int | float) else None,
        failure=" ".join(failure.split()),
        run_id=read_json(run)["run_id"] if run.exists() and not failure else None,
    )


def _record_failure(config: DictConfig, error: Exception) -> None:
    """Leave a run that failed, as a child of the sweep's, unless the training had one already."""
    from pipeline.provenance.training import is_trained
    from pipeline.tracking.stage_runs import failed_training_run, has_a_run

    if has_a_run(error) or is_trained(Path(config.hydra.runtime.output_dir, "train"), written_values(config)):
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


def _number(hydra: DictConfig) -> int:
    """A job's place in the sweep, which its folder is named by; Hydra numbers those that it runs this time."""
    name = Path(hydra.runtime.output_dir).name
    return int(name) if name.isdecimal() else int(hydra.job.num)
