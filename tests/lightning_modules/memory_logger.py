"""A logger that tests look into."""

from typing import Any

from lightning.pytorch.loggers import Logger


class MemoryLogger(Logger):
    """Keeps what was logged at every step, but for the speed and the epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.values: dict[tuple[str, int], float] = {}

    @property
    def name(self) -> str:
        return "memory"

    @property
    def version(self) -> str:
        return "0"

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None: ...

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        assert step is not None
        self.values |= {
            (name, step): value for name, value in metrics.items() if not name.startswith(("throughput", "epoch"))
        }
