"""Which tracked run a stage belongs to: a training opens one, the other stages open children of it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from pipeline.configuration.composed import REPOSITORY
from pipeline.configuration.settings import read_settings
from pipeline.plumbing.files import read_json
from pipeline.plumbing.rank import rank_of_this_process
from pipeline.tracking.config import TrackingConfig
from pipeline.tracking.run import TrackedRun
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
    hydra = HydraConfig.get()
    parent = None
    if hydra.mode == RunMode.MULTIRUN and rank_of_this_process() == 0:
        sweep_folder = Path(hydra.sweep.dir)
        parent = sweep_parent(config, REPOSITORY, sweep_folder, f"sweep {sweep_folder.parent.name} {sweep_folder.name}")
        name = hydra.job.override_dirname or name
    return start_run(config, REPOSITORY, outputs, name, "train", parent, resume_run_id=resume_run_id)


def child_run(values: Mapping[str, Any], outputs: Path, stage: str) -> TrackedRun:
    """Open a run of another stage, as a child of the training whose outputs it works on."""
    config = read_settings(TrackingConfig, values["tracking"], "tracking")
    training = outputs / "train" / "run.json"
    parent = read_json(training)["run_id"] if training.exists() else None
    return start_run(config, REPOSITORY, outputs, stage, stage, parent)
