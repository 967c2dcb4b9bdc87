"""A process that is asked to end, by `kill` or a scheduler, ends as by Ctrl-C."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def ended_as_interrupted() -> Iterator[None]:
    """Raise KeyboardInterrupt in the block on SIGTERM, so that what it has started is ended with it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        # None: whoever set it was not Python.
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)
