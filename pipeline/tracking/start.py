"""Where stages begin their runs. MLflow, which takes seconds to import, is loaded only when it is used."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path

from pipeline.plumbing.rank import RANK_VARIABLES
from pipeline.plumbing.redaction import redacted
from pipeline.tracking.config import TrackingConfig
from pipeline.tracking.run import NullRun, TrackedRun

log = logging.getLogger(__name__)


def start_run(
    config: TrackingConfig,
    repository_root: Path,
    outputs: Path,
    name: str,
    stage: str,
    parent_run_id: str | None = None,
    tags: Mapping[str, str] | None = None,
    resume_run_id: str | None = None,
    parent_tags: Mapping[str, str] | None = None,
) -> TrackedRun:
    """Begin a run, to be used as a context manager.

    Args:
        config: where runs are recorded.
        repository_root: where a relative store lies, and whose commit is recorded.
        outputs: the folder that keeps records while the store is away, in `tracking_journal.jsonl`.
        name: the run's name, to which a number or its parent's is added to tell it from others; tracking.run_name
            takes its place, except for children.
        stage: the stage, as in `train`.
        parent_run_id: the run this one belongs to. One that the store does not know is left out, with a warning: DVC's
            run cache may bring back an id from another store.
        tags: further tags.
        resume_run_id: an interrupted run to go on with. Where the store does not know it a new run begins, with a
            warning.
        parent_tags: what tells the training this run belongs to from others, by which it is found where no id leads to
            it: DVC brings back a checkpoint without a word of the run that made it.

    Raises:
        pipeline.tracking.store.StoreUnavailableError: within about ten seconds, when the store cannot be used.
    """
    if config.kind == "none" or not is_first_process():
        return NullRun()
    if config.uri is not None and redacted(config.uri) != config.uri:
        log.warning(
            "tracking.uri carries credentials, which params.yaml and the shell's history keep; "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD do not."
        )
    from pipeline.tracking.opening import RunRequest, open_run

    own_name = config.run_name if parent_run_id is None else None
    return open_run(
        config,
        repository_root,
        outputs,
        RunRequest(
            own_name or name, stage, parent_run_id, resume_run_id, tags or {}, parent_tags or {}, own_name is not None
        ),
    )


def is_first_process() -> bool:
    """Whether this process, of those that a launcher started, is the one that records."""
    for variable in RANK_VARIABLES:
        if variable in os.environ:
            return os.environ[variable] == "0"
    return True
