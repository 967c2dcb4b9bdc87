"""What the jobs of a sweep are compared by: a figure of their training, or of an evaluation made for it."""

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.configuration.composed import REPOSITORY, Folders
from pipeline.configuration.settings import near_matches, read_settings
from pipeline.plumbing.files import read_json
from pipeline.sweeping.configuration import OF_TRAINING, SweepConfig
from pipeline.tracking.config import TrackingConfig
from pipeline.tracking.sweep import record_objective

log = logging.getLogger(__name__)

METRICS = "metrics.json"
# Of a job that a search has stopped.
PRUNED = "pruned.json"


def figure(folder: Path, name: str) -> float | None:
    """A figure that the stages have left in a job's folder; None where they have not come so far.

    Raises:
        ValueError: when the stage has written others, but not this one.
    """
    path = folder / ("train" if name in OF_TRAINING else "evaluate") / METRICS
    if not path.exists():
        return None
    metrics = read_json(path)
    if name not in metrics:
        raise ValueError(
            f"sweep.objective is '{name}', which {path} does not have; {near_matches(name, list(metrics))}"
        )
    return float(metrics[name])


def job_objective(values: Mapping[str, Any], job: Path) -> float:
    """The objective of a job whose training has ended; converts and evaluates its checkpoint where that is needed.

    Args:
        values: the composed configuration.
        job: where the job has written.

    Raises:
        ValueError: when there is no such figure.
    """
    sweep = read_settings(SweepConfig, values["sweep"], "sweep")
    if sweep.needs_evaluation and (job / PRUNED).exists():
        return math.nan
    if sweep.needs_evaluation:
        evaluate_training(values, job)
    objective = figure(job, sweep.objective)
    assert objective is not None, "the stage has just written its metrics"
    if sweep.needs_evaluation:
        _record(values, job, objective)
    return objective


def evaluate_training(values: Mapping[str, Any], job: Path) -> None:
    """Convert and evaluate what a job has trained, in its own folder."""
    from pipeline.conversion.convert import convert_checkpoint
    from pipeline.evaluation.evaluate import evaluate

    own = {**values, "paths": {**values["paths"], "outputs": str(job)}, "source": None, "target": None}
    folders = Folders(training=job, outputs=job)
    convert_checkpoint(own, folders)
    evaluate(own, folders)


def _record(values: Mapping[str, Any], job: Path, objective: float) -> None:
    """Tell the job's run, which was closed before the evaluation began."""
    config = read_settings(TrackingConfig, values["tracking"], "tracking")
    run_id = read_json(job / "train" / "run.json")["run_id"]
    if config.kind == "none" or run_id is None:
        return
    try:
        record_objective(config, REPOSITORY, run_id, job.parent, objective)
    except (OSError, ValueError) as error:
        log.warning("The objective is in %s, and not in the job's run: %s", job, error)
