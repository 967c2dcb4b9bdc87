"""How long steps take: on the device, and of the processor's time."""

import statistics
import time
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class _Moment:
    """A place in the device's stream of work, and what the clocks showed when the host came by."""

    seconds: float
    cpu_seconds: float
    event: torch.cuda.Event | None


class StepClock:
    """Times steps, one after the other or with pauses between, without waiting for a GPU at each of them.

    On a GPU a step lasts from one place in its stream to another: what the host prepares meanwhile costs nothing, and
    what the GPU has to wait for does. The first step alone is waited for, since it also compiles.

    Args:
        device: what the steps run on.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.first_step_seconds = 0.0
        self._starts: list[_Moment] = []
        self._ends: list[_Moment] = []

    @property
    def n_steps(self) -> int:
        """Steps that have ended."""
        return len(self._ends)

    @property
    def is_running(self) -> bool:
        """Whether a step has begun and not ended."""
        return len(self._starts) > len(self._ends)

    def start(self) -> None:
        """A step begins."""
        self._starts.append(self._now())

    def stop(self) -> None:
        """A step ends."""
        if not self._ends:
            self._wait()
            self.first_step_seconds = time.perf_counter() - self._starts[0].seconds
        self._ends.append(self._now())

    def milliseconds(self) -> list[float]:
        """Of every step."""
        self._wait()
        return [_milliseconds(start, end) for start, end in zip(self._starts, self._ends, strict=False)]

    def cpu_milliseconds(self, first: int) -> float:
        """Of processor time that this process took a step, all threads together, on average from step `first` on."""
        spans = zip(self._starts[first:], self._ends[first:], strict=False)
        return 1000 * statistics.fmean(end.cpu_seconds - start.cpu_seconds for start, end in spans)

    def _now(self) -> _Moment:
        event = None
        if self.device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record()
        return _Moment(time.perf_counter(), time.process_time(), event)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def _milliseconds(start: _Moment, end: _Moment) -> float:
    if start.event is not None and end.event is not None:
        return start.event.elapsed_time(end.event)
    return 1000 * (end.seconds - start.seconds)
