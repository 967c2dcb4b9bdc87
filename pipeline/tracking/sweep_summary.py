"""What a sweep's parent run says about its jobs."""

import math

from mlflow.entities import Run, RunTag

from pipeline.tracking.run import OBJECTIVE
from pipeline.tracking.store import PARENT_TAG, STAGE_TAG, Store
from pipeline.tracking.sweep import SWEEP


def is_sweep(run: Run) -> bool:
    """Whether the run is the parent of a sweep."""
    return run.data.tags.get(STAGE_TAG) == SWEEP


def update_sweep(store: Store, run_id: str) -> None:
    """Summarise the jobs so far on the parent run, and mark it FINISHED, or FAILED once any job has failed.

    Nobody knows which job will be the last.
    """
    parent = store.client.get_run(run_id)
    jobs = store.client.search_runs([parent.info.experiment_id], f"tags.`{PARENT_TAG}` = '{run_id}'")
    states = [job.info.status for job in jobs]
    summary = {f"sweep.{state.lower()}": str(states.count(state)) for state in sorted(set(states))}
    finished = [job for job in jobs if math.isfinite(job.data.metrics.get(OBJECTIVE, math.nan))]
    if finished:
        best = min(finished, key=lambda job: job.data.metrics[OBJECTIVE])
        summary["sweep.best_run"] = best.info.run_id
        summary["sweep.best_name"] = best.info.run_name
        store.client.log_metric(run_id, "sweep/best_objective", best.data.metrics[OBJECTIVE], step=len(finished))
    store.client.log_batch(run_id, tags=[RunTag(key, value) for key, value in summary.items()], synchronous=True)
    failed = {"FAILED", "KILLED"} & set(states)
    store.client.set_terminated(run_id, "FAILED" if failed else "FINISHED")
