"""Runs in MLflow, and where they come from."""

from pipeline.tracking.config import TrackingConfig, store_uri
from pipeline.tracking.lineage import environment, lineage_tags
from pipeline.tracking.request import RunRequest
from pipeline.tracking.run import NullRun, TrackedRun
from pipeline.tracking.start import start_run
from pipeline.tracking.sweep import sweep_parent

__all__ = [
    "NullRun",
    "RunRequest",
    "TrackedRun",
    "TrackingConfig",
    "environment",
    "lineage_tags",
    "start_run",
    "store_uri",
    "sweep_parent",
]
