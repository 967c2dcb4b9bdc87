"""Sweeps: one parent run for all jobs, made by whichever job is first. MLflow is loaded only by that one."""

import logging
import time
from collections.abc import Mapping
from pathlib import Path

from pipeline.tracking.config import TrackingConfig
from pipeline.tracking.limits import valid_tags
from pipeline.tracking.lineage import lineage_tags
from pipeline.tracking.run import OBJECTIVE

log = logging.getLogger(__name__)

PARENT_FILE = "parent_run.txt"
SWEEP = "sweep"
# Tags of the parent: where its jobs lie, what they are compared by, and whether a small one is good.
FOLDER_TAG, OBJECTIVE_TAG, GOAL_TAG = "sweep.folder", "sweep.objective", "sweep.goal"
# Tags of a job: which one of the sweep it is, what tells it from others, and that without the seed.
JOB_TAG, OVERRIDES_TAG, CONFIGURATION_TAG = "sweep.job", "sweep.overrides", "sweep.configuration"
WAIT = 120.0
POLL = 0.1


def sweep_parent(
    config: TrackingConfig, repository_root: Path, sweep_dir: Path, name: str, tags: Mapping[str, str] | None = None
) -> str | None:
    """Id of the run that all jobs of a sweep are children of: the first job makes it, the others wait for its id.

    Args:
        config: where runs are recorded.
        repository_root: where a relative store lies.
        sweep_dir: the folder that all jobs of the sweep share; it keeps the id in `parent_run.txt`.
        name: the parent run's name.
        tags: further tags of it.

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
                run_id = _create_parent(config, repository_root, sweep_dir, name, tags or {})
                file.write(f"{run_id}\n")
        except BaseException:
            # The next job may have more luck.
            path.unlink(missing_ok=True)
            raise
        return run_id


def record_objective(config: TrackingConfig, repository_root: Path, run_id: str, sweep_dir: Path, value: float) -> None:
    """Log what a job whose run has ended is compared by, and sum the sweep up again.

    Raises:
        pipeline.tracking.store.StoreUnavailableError: when the store cannot be used.
    """
    from pipeline.tracking.store import asking, connect
    from pipeline.tracking.sweep_summary import update_sweep

    parent = (sweep_dir / PARENT_FILE).read_text(encoding="utf-8").strip()
    store, _ = connect(config, repository_root)
    with asking(store.uri):
        store.client.log_metric(run_id, OBJECTIVE, value)
        update_sweep(store, parent)


def close_runs_left_behind(config: TrackingConfig, repository_root: Path, sweep_dir: Path) -> None:
    """Close the runs of jobs whose processes went down with their sweep, and sum it up again."""
    parent = sweep_dir / PARENT_FILE
    if config.kind == "none" or not parent.exists():
        return
    from pipeline.tracking.store import StoreUnavailableError, asking, connect
    from pipeline.tracking.sweep_summary import update_sweep

    try:
        # Whoever connects closes what was left behind.
        store, _ = connect(config, repository_root)
        with asking(store.uri):
            update_sweep(store, parent.read_text(encoding="utf-8").strip())
    except StoreUnavailableError as error:
        log.warning("Runs of jobs that were interrupted may say that they are running: %s", error)


def _create_parent(
    config: TrackingConfig, repository_root: Path, sweep_dir: Path, name: str, tags: Mapping[str, str]
) -> str:
    from pipeline.tracking.store import STAGE_TAG, connect

    store, experiment = connect(config, repository_root)
    own = {**lineage_tags(repository_root), **tags, STAGE_TAG: SWEEP, FOLDER_TAG: str(sweep_dir.resolve())}
    return store.create_run(experiment.experiment_id, name, valid_tags(own)).info.run_id


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
