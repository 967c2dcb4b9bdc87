"""Learning rates over training: linear warm-up, a plateau, cosine decay."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class ScheduleConfig:
    """Warm-up over `warmup_steps`, the peak for `constant_fraction` of the rest, then a cosine to `final_ratio`."""

    LARGEST: ClassVar[Mapping[str, float]] = {"warmup_steps": 10**8}

    warmup_steps: int
    constant_fraction: float
    final_ratio: float

    def __post_init__(self) -> None:
        if self.warmup_steps < 0:
            raise ValueError(f"schedule.warmup_steps is {self.warmup_steps}; it must not be negative.")
        if not 0 <= self.constant_fraction <= 1:
            raise ValueError(f"schedule.constant_fraction is {self.constant_fraction}; it must lie between 0 and 1.")
        if not 0 <= self.final_ratio <= 1:
            raise ValueError(f"schedule.final_ratio is {self.final_ratio}; it must lie between 0 and 1.")

    def ratio(self, step: int, max_steps: int) -> float:
        """The share of the peak learning rate at optimizer step `step` (from 0) of `max_steps`."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        remaining = max(max_steps - self.warmup_steps, 1)
        progress = min((step - self.warmup_steps) / remaining, 1.0)
        if progress <= self.constant_fraction:
            return 1.0
        decayed = (progress - self.constant_fraction) / (1 - self.constant_fraction)
        return self.final_ratio + (1 - self.final_ratio) * 0.5 * (1 + math.cos(math.pi * decayed))
