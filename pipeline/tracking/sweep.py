"""Sweeps: one parent run for all jobs, made by whichever job is first. MLflow is loaded only by that one."""

import time
from pathlib import Path

from pipeline.tracking.config import TrackingConfig
from pipeline.tracking.limits import valid_tags
from pipeline.tracking.lineage import lineage_tags

PARENT_FILE = "parent_run.txt"
SWEEP = "sweep"
WAIT = 120.0
POLL = 0.1


def sweep_parent(config: TrackingConfig, repository_root: Path, sweep_dir: Path, name: str) -> str | None:
    """Id of the run that all jobs of a sweep are children of: the first job makes it, the others wait for its id.

    Args:
        config: where runs are recorded.
        repository_root: where a relative store lies.
        sweep_dir: the folder that all jobs of the sweep share; it keeps the id in `parent_run.txt`.
        name: the parent run's name.

    Returns:
        The run id, to be given to `start_run` as the parent; None without tracking.

    Raises:
        pipeline.tracking.store.StoreUnavailableError: when the store cannot be used.
        TimeoutError: when the job that began to make the parent did not finish.
    """
    if config.kind == "none":
        return None
    sweep_dir.mkdir(parents=True, exist_ok=True)
    path = sweep_dir / PARENT_FILE
    while True:
        try:
            file = path.open("x", encoding="utf-8")
        except FileExistsError:
            run_id = _wait_for_id(path)
            if run_id is not None:
                return run_id
            continue
        try:
            with file:
                run_id = _create_parent(config, repository_root, sweep_dir, name)
                file.write(f"{run_id}\n")
        except BaseException:
            # The next job may have more luck.
            path.unlink(missing_ok=True)
            raise
        return run_id


def _create_parent(config: TrackingConfig, repository_root: Path, sweep_dir: Path, name: str) -> str:
    from pipeline.tracking.store import STAGE_TAG, connect

    store, experiment = connect(config, repository_root)
    tags = valid_tags({**lineage_tags(repository_root), STAGE_TAG: SWEEP, "sweep.folder": str(sweep_dir)})
    return store.create_run(experiment.experiment_id, name, tags).info.run_id


def _wait_for_id(path: Path) -> str | None:
    """The id another job is about to write; None when that job failed and took its file away."""
    deadline = time.monotonic() + WAIT
    while time.monotonic() < deadline:
        try:
            run_id = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        if run_id.endswith("\n"):
            return run_id.strip()
        time.sleep(POLL)
    raise TimeoutError(f"{path} holds no run id: the job that made it was stopped. Delete the file and start again.")
