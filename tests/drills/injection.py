"""A process whose file operations fail, or that is killed before one of them."""

import errno
import os
import resource
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "shutil.rmtree"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


@dataclass(frozen=True)
class Fault:
    """What happens to file operations that change something, counted from 0.

    Attributes:
        operation: at which of them it begins; None: at none.
        error: the `errno` that this operation and all later ones raise; None: the process is killed before it.
        file_bytes: no file may become larger than this, as on a full disk; None: any size.
    """

    operation: int | None = None
    error: int | None = None
    file_bytes: int | None = None


class Operations:
    """Counts the operations of this process that change something below a folder, and lets a fault happen.

    An audit hook cannot be taken out again: this is for processes that are about to end.
    """

    def __init__(self, folder: Path, fault: Fault) -> None:
        self.count = 0
        self._folder = str(folder)
        self._fault = fault
        if fault.file_bytes is not None:
            # Python then gets EFBIG instead of the signal.
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (fault.file_bytes, fault.file_bytes))
        sys.addaudithook(self._heard)

    def _heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = arguments
            if not (isinstance(mode, str) and set(mode) & set("wax+")) and not (flags or 0) & WRITING:
                return
        elif event in CHANGES:
            path = arguments[0]
        else:
            return
        if not isinstance(path, str | bytes | os.PathLike):
            return
        # A removed tree's files are named relative to its open folders.
        named = os.fsdecode(path)
        is_relative = event in ("os.remove", "os.rmdir") and not os.path.isabs(named)
        if not is_relative and not named.startswith(self._folder):
            return
        number, self.count = self.count, self.count + 1
        if self._fault.operation is None or number < self._fault.operation:
            return
        if self._fault.error is None:
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(self._fault.error, os.strerror(self._fault.error or errno.EIO), os.fsdecode(path))


@dataclass(frozen=True)
class Ended:
    """How a process ended.

    Attributes:
        status: its exit status, negative for a signal.
        said: what it had to say: the number of operations, or the sentence of an error, or a raw error.
    """

    status: int
    said: str

    @property
    def was_told(self) -> bool:
        """Whether it ended well, was killed, or said in one sentence what was wrong."""
        return self.status in (0, SENTENCE, -signal.SIGKILL)


SENTENCE, RAW = 2, 1


def in_another_process(work: Callable[[], object], folder: Path, fault: Fault, seconds: float = 240.0) -> Ended:
    """Call `work` in a fork of this process, with a fault, and wait for its end; a hang ends by SIGALRM."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        _work_and_leave(work, folder, fault, write, seconds)
    os.close(write)
    with os.fdopen(read, encoding="utf-8", errors="replace") as pipe:
        said = pipe.read()
    return Ended(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), said)


def _work_and_leave(work: Callable[[], object], folder: Path, fault: Fault, write: int, seconds: float) -> None:
    from pipeline.entry.errors import sentence_of

    signal.alarm(int(seconds))
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    operations = Operations(folder, fault)
    status, said = 0, ""
    try:
        work()
        said = str(operations.count)
    except BaseException as error:  # noqa: BLE001 - told to the parent
        sentence = sentence_of(error)
        status = RAW if sentence is None else SENTENCE
        said = sentence or f"{type(error).__name__}: {error} at {_place_of(error)}"
    os.write(write, said.encode()[:2000])
    os._exit(status)


def _place_of(error: BaseException) -> str:
    import traceback

    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{frame.filename}:{frame.lineno}"
