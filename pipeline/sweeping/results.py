"""What a sweep has left, from its folder or from its MLflow run."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.configuration.composed import REPOSITORY
from pipeline.configuration.settings import read_settings
from pipeline.plumbing.files import read_csv
from pipeline.sweeping.job import Job, read_jobs
from pipeline.sweeping.record import SweepRecord, read_record
from pipeline.tracking.config import TrackingConfig

CURVE = "val/loss"
SHORT = 8


@dataclass(frozen=True, eq=False)
class SweepResults:
    """A sweep as far as it has come.

    Attributes:
        name: of the sweep.
        folder: where its page goes unless another is named; None of a sweep of another machine.
        record: what was asked for.
        jobs: that have ended.
        curves: validation loss over steps, (steps [N], values [N]) by the number of the job.
    """

    name: str
    folder: Path | None
    record: SweepRecord
    jobs: list[Job]
    curves: Mapping[int, tuple[np.ndarray, np.ndarray]]


def find_results(name: str, values: Mapping[str, Any]) -> SweepResults:
    """The results of a sweep by the name of its folder, or by the id of its run.

    Raises:
        FileNotFoundError, ValueError: when there is no such sweep, or none of its jobs has ended.
        pipeline.tracking.store.StoreUnavailableError: when the store cannot be used.
    """
    folder = Path(name)
    if folder.is_dir():
        return _of_folder(folder)
    if re.fullmatch(r"[0-9a-f]{32}", name):
        return _of_run(name, read_settings(TrackingConfig, values["tracking"], "tracking"))
    raise FileNotFoundError(
        f"{name} is no folder of a sweep, as multirun/lr-1a2b3c, and no id of a sweep's MLflow run."
    )


def _of_folder(folder: Path) -> SweepResults:
    record, jobs = read_record(folder), read_jobs(folder)
    if record is None:
        inside = " It is one of a sweep's jobs: name the folder above." if read_record(folder.parent) else ""
        raise ValueError(f"{folder} is not the folder of a sweep: it has no sweep.json.{inside}")
    if not jobs:
        raise ValueError(f"No job of {folder} has ended yet; run the command of the sweep again.")
    curves = {job.number: curve for job in jobs if (curve := _curve(Path(job.folder))) is not None}
    return SweepResults(folder.name, folder, record, jobs, curves)


def _curve(job: Path) -> tuple[np.ndarray, np.ndarray] | None:
    path = job / "train" / "validation.csv"
    if not path.exists():
        return None
    rows = [row for row in read_csv(path) if row.get(CURVE)]
    return np.array([float(row["step"]) + 1 for row in rows]), np.array([float(row[CURVE]) for row in rows])


def _of_run(run_id: str, config: TrackingConfig) -> SweepResults:
    """A sweep by its run: from its folder where that is at hand, and otherwise as far as the store tells."""
    from pipeline.tracking.store import asking, connect
    from pipeline.tracking.sweep import FOLDER_TAG, GOAL_TAG, OBJECTIVE_TAG
    from pipeline.tracking.sweep_summary import is_sweep, last_attempts

    store, _ = connect(config, REPOSITORY)
    with asking(store.uri):
        parent = store.run(run_id)
        children = last_attempts(store, parent) if parent else []
        curves = {
            number: (np.array([m.step + 1 for m in history]), np.array([m.value for m in history]))
            for number, run in enumerate(children)
            if (history := store.client.get_metric_history(run.info.run_id, CURVE))
        }
    if parent is None:
        raise FileNotFoundError(f"The store {store.name} has no run {run_id}.")
    if not is_sweep(parent):
        raise ValueError(
            f"The run {parent.info.run_name} is not that of a sweep; name the run that its jobs are children of."
        )
    folder = Path(parent.data.tags.get(FOLDER_TAG, ""))
    if read_record(folder) is not None:
        return _of_folder(folder)
    jobs = [_job(number, run) for number, run in enumerate(children)]
    if not jobs:
        raise ValueError(f"The sweep {parent.info.run_name} has no jobs.")
    record = SweepRecord(
        "train",
        parent.data.tags.get(OBJECTIVE_TAG, CURVE),
        parent.data.tags.get(GOAL_TAG, "minimize"),
        [list(job.overrides) for job in jobs],
    )
    return SweepResults(parent.info.run_name, None, record, jobs, curves)


def _job(number: int, run: Any) -> Job:
    """A job as its run tells of it."""
    from pipeline.tracking.run import OBJECTIVE
    from pipeline.tracking.sweep import OVERRIDES_TAG

    tags = run.data.tags
    overrides = tuple(tags.get(OVERRIDES_TAG, tags.get("overrides", "")).split())
    ended_well = run.info.status == "FINISHED"
    failure = "" if ended_well else tags.get("failure", run.info.status.lower())
    return Job(number, overrides, "", run.data.metrics.get(OBJECTIVE), failure, run.info.run_id)
