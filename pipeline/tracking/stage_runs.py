"""Which tracked run a stage belongs to: a training opens one, the other stages open children of it."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline.configuration.composed import REPOSITORY, Folders
from pipeline.configuration.multirun import MultirunJob
from pipeline.configuration.overridden import overridden, shaping
from pipeline.configuration.settings import read_settings
from pipeline.plumbing.rank import rank_of_this_process
from pipeline.provenance.identity import TrainingIdentity
from pipeline.provenance.training import run_of
from pipeline.sweeping.job import without_seed
from pipeline.tracking.config import TrackingConfig
from pipeline.tracking.names import DEFAULT, job_title, run_title
from pipeline.tracking.request import RunRequest
from pipeline.tracking.run import FAILURE_NOTE, TrackedRun
from pipeline.tracking.start import start_run
from pipeline.tracking.sweep import CONFIGURATION_TAG, GOAL_TAG, JOB_TAG, OBJECTIVE_TAG, OVERRIDES_TAG, sweep_parent


def training_run(values: Mapping[str, Any], outputs: Path, name: str, resume_run_id: str | None) -> TrackedRun:
    """Open the run of a training, within its sweep's run if it is a job of one; only the first rank's records anything.

    Args:
        values: the configuration.
        outputs: where the stage writes.
        name: what is trained.
        resume_run_id: the run of the interrupted training that this one goes on with.
    """
    config = read_settings(TrackingConfig, values["tracking"], "tracking")
    if rank_of_this_process() != 0:
        return start_run(config, REPOSITORY, outputs, RunRequest(name, "train"))
    job, parent, tags = MultirunJob.of_this_process(), None, dict[str, str]()
    if job is not None:
        parent_tags = {GOAL_TAG: values["sweep"]["goal"], OBJECTIVE_TAG: values["sweep"]["objective"]}
        parent = sweep_parent(config, REPOSITORY, job.sweep, sweep_title(job.overrides, job.sweep), parent_tags)
        overrides = shaping(job.overrides)
        title = job_title(overrides, name)
        tags = {
            JOB_TAG: job.folder.name,
            CONFIGURATION_TAG: " ".join(without_seed(job.overrides)) or DEFAULT,
            OVERRIDES_TAG: " ".join(job.overrides),
        }
    else:
        overrides = overridden(values)
        title = run_title(overrides, name)
    if overrides:
        tags["overrides"] = " ".join(overrides)
    return start_run(config, REPOSITORY, outputs, RunRequest(title, "train", parent, tags, resume_run_id))


def sweep_title(overrides: Sequence[str], folder: Path) -> str:
    """The name of a sweep's run: what its jobs differ in, and its folder.

    Args:
        overrides: of one of its jobs.
        folder: of the sweep.
    """
    keys = (override.partition("=")[0].rpartition(".")[2] for override in overrides)
    return f"sweep {' '.join(keys)} · {folder.name}"


def failed_training_run(values: Mapping[str, Any], outputs: Path, error: Exception) -> None:
    """Leave a run, marked FAILED with the reason, of a job that failed before its training could open one.

    Raises:
        ConnectionError, ValueError: when there is no store for it.
    """
    with suppress(type(error)), training_run(values, outputs, "failed", None) as run:
        run.log_parameters(values)
        raise error


def has_a_run(error: Exception) -> bool:
    """Whether an error has passed through a tracked run, which is marked FAILED for it."""
    return any(note.startswith(FAILURE_NOTE) for note in getattr(error, "__notes__", ()))


def child_run(values: Mapping[str, Any], folders: Folders, stage: str, training: TrainingIdentity | None) -> TrackedRun:
    """Open a run of another stage, as a child of the training that its results are from.

    Args:
        values: the configuration.
        folders: where the training's outputs are, and where the stage writes.
        stage: the stage's name.
        training: which training the results are from; of an unknown one the run is nobody's child.
    """
    config = read_settings(TrackingConfig, values["tracking"], "tracking")
    job = MultirunJob.of_this_process()
    name = stage if job is None else f"{stage} {', '.join(job.overrides)}".strip()
    tags = {} if training is None else training.tags()
    parent = run_of(folders.training / "train", training).get("run_id")
    request = RunRequest(name, stage, parent, tags, parent_tags=tags)
    return start_run(config, REPOSITORY, folders.outputs, request)
