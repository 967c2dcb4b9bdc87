"""The `strategy` group of the configuration, read and checked."""

from collections.abc import Mapping
from typing import Any

from lightning_modules.parallel.configuration import ParallelConfig
from pipeline.configuration.settings import read_settings

KINDS = ("single_device", "expert_parallel")


def read_strategy(strategy: Mapping[str, Any]) -> ParallelConfig | None:
    """How a training is spread over ranks; None: a single device.

    Raises:
        ValueError: naming the key that cannot be, and the remedy.
    """
    settings = dict(strategy)
    kind = settings.pop("kind")
    if kind not in KINDS:
        raise ValueError(f"strategy.kind is '{kind}'; choose {' or '.join(KINDS)}.")
    if kind == "expert_parallel":
        return read_settings(ParallelConfig, settings, "strategy")
    if settings:
        raise ValueError(
            f"strategy.{min(settings)} is set, but one device has nothing to arrange; add strategy=expert_parallel."
        )
    return None
