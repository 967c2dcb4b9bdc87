"""Work that a thread does again and again beside a training."""

import logging
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)


class Repeating:
    """Calls a function every so often, in a daemon thread, until it is stopped; an error ends only that one call.

    Args:
        name: of the thread.
        interval: seconds from the end of a call to the next; the first comes after as long.
        work: the function.
    """

    def __init__(self, name: str, interval: float, work: Callable[[], object]) -> None:
        self._interval = interval
        self._call = work
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    @property
    def is_stopping(self) -> bool:
        """Whether it has been stopped; what a call under way has found comes too late."""
        return self._stopping.is_set()

    def stop(self) -> None:
        """Stop; a call under way is waited for, but not for long."""
        self._stopping.set()
        self._thread.join(timeout=1.0)

    def _work(self) -> None:
        while not self._stopping.wait(self._interval):
            try:
                self._call()
            except Exception:  # noqa: BLE001 - whatever goes wrong beside it, the training goes on
                log.debug("%s failed once", self._thread.name, exc_info=True)
