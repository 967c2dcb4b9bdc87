"""Processes told apart for good: a process id alone is given to another process sooner or later."""

import os
import socket
from dataclasses import dataclass

import psutil

# psutil derives the start from the clock, which may have been set since.
START_TOLERANCE = 2.0


@dataclass(frozen=True)
class Process:
    """A process of some machine.

    Attributes:
        host: name of the machine.
        pid: the process id.
        started: when the process began, in seconds since the epoch.
    """

    host: str
    pid: int
    started: float

    @classmethod
    def current(cls) -> "Process":
        """This process."""
        return cls(socket.gethostname(), os.getpid(), psutil.Process().create_time())

    @classmethod
    def parse(cls, text: str) -> "Process | None":
        """Read what `str(process)` wrote; None when it is something else."""
        host, _, rest = text.partition(" ")
        pid, _, started = rest.partition(" ")
        try:
            return cls(host, int(pid), float(started))
        except ValueError:
            return None

    def __str__(self) -> str:
        return f"{self.host} {self.pid} {self.started:.2f}"

    @property
    def is_here(self) -> bool:
        """Whether it is a process of this machine."""
        return self.host == socket.gethostname()

    @property
    def is_current(self) -> bool:
        """Whether this very process is meant."""
        return self.pid == os.getpid() and self.is_here and not self.gone

    @property
    def gone(self) -> bool:
        """Whether the process has certainly ended; of another machine's processes that is not known."""
        if not self.is_here:
            return False
        try:
            return abs(psutil.Process(self.pid).create_time() - self.started) > START_TOLERANCE
        except psutil.NoSuchProcess:
            return True
        except psutil.Error:
            return False
