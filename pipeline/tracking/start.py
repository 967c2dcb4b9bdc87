"""Where stages begin their runs. MLflow, which takes seconds to import, is loaded only when it is used."""

import logging
import os
from pathlib import Path

from pipeline.plumbing.rank import RANK_VARIABLES
from pipeline.plumbing.redaction import redacted
from pipeline.tracking.config import TrackingConfig
from pipeline.tracking.request import RunRequest
from pipeline.tracking.run import NullRun, TrackedRun

log = logging.getLogger(__name__)


def start_run(config: TrackingConfig, repository_root: Path, outputs: Path, request: RunRequest) -> TrackedRun:
    """Begin a run, to be used as a context manager.

    Args:
        config: where runs are recorded.
        repository_root: where a relative store lies, and whose commit is recorded.
        outputs: the folder that keeps records while the store is away, in `tracking_journal.jsonl`.
        request: which run.

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
    from pipeline.tracking.opening import open_run

    return open_run(config, repository_root, outputs, request)


def is_first_process() -> bool:
    """Whether this process, of those that a launcher started, is the one that records."""
    for variable in RANK_VARIABLES:
        if variable in os.environ:
            return os.environ[variable] == "0"
    return True
