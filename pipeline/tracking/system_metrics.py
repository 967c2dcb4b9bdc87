"""How busy a machine is, beside the metrics of a run."""

import time
from collections.abc import Callable, Mapping

from mlflow.system_metrics.metrics.base_metrics_monitor import BaseMetricsMonitor
from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

from pipeline.tracking.repeating import Repeating

INTERVAL = 10.0
LogMetrics = Callable[[Mapping[str, float], int], None]


class Monitors:
    """MLflow's monitors of this machine: processor, memory, disk, network and GPUs."""

    def __init__(self) -> None:
        self._monitors: list[BaseMetricsMonitor] = [CPUMonitor(), DiskMonitor(), NetworkMonitor(), *_gpus()]

    def sample(self) -> dict[str, float]:
        """How busy everything is now, `cpu_utilization_percentage` and so on."""
        sample: dict[str, float] = {}
        for monitor in self._monitors:
            monitor.collect_metrics()
            sample |= monitor.aggregate_metrics()
            monitor.clear_metrics()
        return sample


class SystemMetrics:
    """Samples this machine in a thread of its own.

    MLflow's own thread asks the store for the run at every sample: it stops for good when the store is away, and
    holds up the end of a run. This one only hands its samples on.

    Args:
        log_metrics: receives the samples and their step, the seconds since the run began.
        began: when the run began, in seconds since the epoch.
        interval: seconds between samples.
    """

    def __init__(self, log_metrics: LogMetrics, began: float, interval: float = INTERVAL) -> None:
        self._log_metrics = log_metrics
        self._began = began
        self._monitors = Monitors()
        self._repeating = Repeating("system metrics", interval, self._work)

    def stop(self) -> None:
        """Stop sampling."""
        self._repeating.stop()

    def _work(self) -> None:
        sample = {f"system/{name}": value for name, value in self._monitors.sample().items()}
        if not self._repeating.is_stopping:
            self._log_metrics(sample, int(time.time() - self._began))


def _gpus() -> list[BaseMetricsMonitor]:
    try:
        return [GPUMonitor()]
    except (ImportError, RuntimeError):  # without nvidia-ml-py, or without a device
        return []
