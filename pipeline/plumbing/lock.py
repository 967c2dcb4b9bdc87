"""One writer at a time: who holds a folder is told by name and process."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pipeline.plumbing.files import read_json, write_json
from pipeline.plumbing.process import Process

log = logging.getLogger(__name__)


class InUseError(OSError):
    """Another process writes where this one would; the message names it."""


@contextmanager
def exclusive(lock: Path, writer: str, target: Path, elsewhere: str = "paths.outputs=…") -> Iterator[None]:
    """Hold `lock` while the block runs, or be refused at once.

    The operating system lets go of it when its process ends, however that happens. Where a file system has no locks,
    the file itself is one, and that of a process that has ended is taken over.

    Args:
        lock: a file outside what is written, which stays; beside it lies `<lock>.json`, which tells who holds it.
        writer: what this process is to others, as in "training small".
        target: what is written, for messages.
        elsewhere: the setting that gives this process a folder of its own, for messages.

    Raises:
        InUseError: when another process holds it, with its name, its id, its machine and since when.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    owner_file = lock.with_name(lock.name + ".json")
    held = FileLock(lock)
    try:
        held.acquire(blocking=False)
    except Timeout:
        raise InUseError(
            f"{_describe(owner_file)} writes to {target}; wait until it is done, end it, or give this one a folder of "
            f"its own ({elsewhere})."
        ) from None
    try:
        if owner_file.exists():
            log.info("%s did not end by itself.", _describe(owner_file))
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        owner = {"writer": writer, "process": str(Process.current()), "since": now, "command": sys.argv}
        write_json(owner_file, owner)
        yield
        owner_file.unlink(missing_ok=True)
    finally:
        held.release()


def _describe(owner_file: Path) -> str:
    """Who holds the lock, as far as that is known: the file is written a moment after the lock is taken."""
    try:
        owner: Any = read_json(owner_file)
        process = Process.parse(owner["process"])
        assert process is not None
        return f"{owner['writer']} (process {process.pid} on {process.host}, since {owner['since']})"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, AssertionError):
        return "another process, which has not said which,"
