"""What a sweep's parent run says about its jobs."""

import math
from collections.abc import Sequence
from statistics import fmean

from mlflow.entities import Run, RunTag

from pipeline.tracking.run import OBJECTIVE
from pipeline.tracking.store import PARENT_TAG, STAGE_TAG, Store
from pipeline.tracking.sweep import CONFIGURATION_TAG, GOAL_TAG, JOB_TAG, SWEEP

# As many as MLflow gives at once.
MOST_JOBS = 50_000


def is_sweep(run: Run) -> bool:
    """Whether the run is the parent of a sweep."""
    return run.data.tags.get(STAGE_TAG) == SWEEP


def update_sweep(store: Store, run_id: str) -> None:
    """Summarise the jobs so far on the parent run, and mark it FINISHED, or FAILED once any job has failed.

    Nobody knows which job will be the last. Of a job that was tried again the last attempt counts.
    """
    parent = store.client.get_run(run_id)
    attempts = _children(store, parent)
    jobs = _newest(attempts)
    states = [job.info.status for job in jobs]
    known = {state.lower() for state in (job.info.status for job in attempts)}
    summary = {f"sweep.{state}": str(sum(s.lower() == state for s in states)) for state in sorted(known)}
    sign = -1 if parent.data.tags.get(GOAL_TAG) == "maximize" else 1
    finished = [job for job in jobs if math.isfinite(job.data.metrics.get(OBJECTIVE, math.nan))]
    if finished:
        best = min(_best_configuration(finished, sign), key=lambda job: sign * job.data.metrics[OBJECTIVE])
        summary["sweep.best_run"] = best.info.run_id
        summary["sweep.best_name"] = best.info.run_name
        store.client.log_metric(run_id, "sweep/best_objective", best.data.metrics[OBJECTIVE], step=len(finished))
    store.client.log_batch(run_id, tags=[RunTag(key, value) for key, value in summary.items()], synchronous=True)
    failed = {"FAILED", "KILLED"} & set(states)
    store.client.set_terminated(run_id, "FAILED" if failed else "FINISHED")


def last_attempts(store: Store, parent: Run) -> list[Run]:
    """The runs of a sweep's jobs, of each the newest, in the order of the jobs."""
    return _newest(_children(store, parent))


def _children(store: Store, parent: Run) -> list[Run]:
    condition = f"tags.`{PARENT_TAG}` = '{parent.info.run_id}'"
    return list(store.client.search_runs([parent.info.experiment_id], condition, max_results=MOST_JOBS))


def _newest(runs: Sequence[Run]) -> list[Run]:
    """The newest run of each job."""
    newest = {run.data.tags.get(JOB_TAG, run.info.run_id): run for run in sorted(runs, key=lambda r: r.info.start_time)}
    return list(newest.values())


def _best_configuration(runs: Sequence[Run], sign: int) -> list[Run]:
    """The runs of the configuration whose mean over seeds is the best."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.data.tags.get(CONFIGURATION_TAG, run.info.run_id), []).append(run)
    return min(groups.values(), key=lambda group: sign * fmean(run.data.metrics[OBJECTIVE] for run in group))
