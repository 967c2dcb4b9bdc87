"""Signals that ask a job of SLURM's to leave while it has nothing to save yet: they are kept until it has."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ASKING = (signal.SIGTERM, signal.SIGUSR1)


class KeptSignals:
    """A handler that notes what came, and lets the process go on."""

    def __init__(self) -> None:
        self.numbers = set[int]()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Note a signal."""
        self.numbers.add(number)


@contextmanager
def signals_kept() -> Iterator[None]:
    """Within, a job of SLURM's does not end by the signals that `ASKING` names, unless somebody listens to them.

    A process that such a signal ends has failed, as SLURM sees it, and a job that has failed is not queued again, even
    where another job is to have its machines. Where it stays SLURM kills it in the end, and does with the job what it
    had meant to.
    """
    handler, free = KeptSignals(), list[signal.Signals]()
    if "SLURM_JOB_ID" in os.environ and threading.current_thread() is threading.main_thread():
        free = [number for number in ASKING if signal.getsignal(number) == signal.SIG_DFL]
    for number in free:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number in free:
            signal.signal(number, signal.SIG_DFL)


def keeper() -> KeptSignals | None:
    """Who keeps them now."""
    handlers = [signal.getsignal(number) for number in ASKING]
    return next((handler for handler in handlers if isinstance(handler, KeptSignals)), None)
