"""How busy the machine is, beside the metrics of a run."""

import threading
import time
from collections.abc import Callable, Mapping

from mlflow.system_metrics.metrics.base_metrics_monitor import BaseMetricsMonitor
from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

INTERVAL = 10.0


class SystemMetrics:
    """Samples MLflow's monitors in a thread of its own.

    MLflow's own thread asks the store for the run at every sample: it stops for good when the store is away, and
    holds up the end of a run. This one only hands its samples on.

    Args:
        log_metrics: receives the samples and their step, the seconds since the run began.
        began: when the run began, in seconds since the epoch.
        interval: seconds between samples.
    """

    def __init__(
        self, log_metrics: Callable[[Mapping[str, float], int], None], began: float, interval: float = INTERVAL
    ) -> None:
        self._log_metrics = log_metrics
        self._began = began
        self._interval = interval
        self._monitors: list[BaseMetricsMonitor] = [CPUMonitor(), DiskMonitor(), NetworkMonitor(), *_gpus()]
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="system metrics", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop sampling."""
        self._stopping.set()
        self._thread.join(timeout=1.0)

    def _work(self) -> None:
        while not self._stopping.wait(self._interval):
            sample: dict[str, float] = {}
            for monitor in self._monitors:
                monitor.collect_metrics()
                sample |= {f"system/{name}": value for name, value in monitor.aggregate_metrics().items()}
                monitor.clear_metrics()
            if not self._stopping.is_set():
                self._log_metrics(sample, int(time.time() - self._began))


def _gpus() -> list[BaseMetricsMonitor]:
    try:
        return [GPUMonitor()]
    except (ImportError, RuntimeError):  # without nvidia-ml-py, or without a device
        return []
