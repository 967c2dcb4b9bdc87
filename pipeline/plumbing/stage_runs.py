"""Which tracked run a stage belongs to: a training opens one, the other stages open children of it."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from pipeline.configuration.command_line import own_overrides, swept_overrides
from pipeline.configuration.composed import REPOSITORY, Folders, is_multirun
from pipeline.configuration.overridden import overridden, shaping
from pipeline.configuration.settings import read_settings
from pipeline.plumbing.rank import rank_of_this_process
from pipeline.provenance.identity import TrainingIdentity
from pipeline.provenance.training import run_of
from pipeline.tracking.config import TrackingConfig
from pipeline.tracking.names import job_title, run_title
from pipeline.tracking.run import FAILURE_NOTE, TrackedRun
from pipeline.tracking.start import start_run
from pipeline.tracking.sweep import sweep_parent


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
        return start_run(config, REPOSITORY, outputs, name, "train")
    hydra, parent = HydraConfig.get(), None
    if hydra.mode == RunMode.MULTIRUN:
        own, sweep_folder = own_overrides(hydra), Path(hydra.sweep.dir)
        parent = sweep_parent(config, REPOSITORY, sweep_folder, sweep_title(own, sweep_folder))
        overrides = shaping(own)
        title = job_title(overrides, name)
    else:
        overrides = overridden(values)
        title = run_title(overrides, name)
    tags = {"overrides": " ".join(overrides)} if overrides else {}
    return start_run(config, REPOSITORY, outputs, title, "train", parent, tags, resume_run_id=resume_run_id)


def sweep_title(overrides: Sequence[str], folder: Path) -> str:
    """The name of a sweep's run: what its jobs differ in, and when it began.

    Args:
        overrides: of one of its jobs.
        folder: of the sweep, which is named after the time.
    """
    keys = (override.partition("=")[0].rpartition(".")[2] for override in overrides)
    return f"sweep {' '.join(keys)} · {folder.parent.name} {folder.name}"


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
    name = f"{stage} {swept_overrides(HydraConfig.get())}".strip() if is_multirun() else stage
    tags = {} if training is None else training.tags()
    parent = run_of(folders.training / "train", training).get("run_id")
    return start_run(config, REPOSITORY, folders.outputs, name, stage, parent, tags, parent_tags=tags)
