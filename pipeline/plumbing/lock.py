"""One writer at a time: who holds a folder is told by name and process."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pipeline.plumbing.files import read_json, write_json
from pipeline.plumbing.process import Process
from pipeline.plumbing.redaction import redacted_values

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Owner:
    """What the holder of a lock says of itself: who it is, and since when it holds the lock."""

    writer: str
    process: Process
    since: str


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
    held = _lock(lock)
    try:
        held.acquire(blocking=False)
    except Timeout:
        raise InUseError(
            f"{_describe(_owner_file(lock))} writes to {target}; wait until it is done, end it, or give this one a "
            f"folder of its own ({elsewhere})."
        ) from None
    if _owner_file(lock).exists():
        log.info("%s did not end by itself.", _describe(_owner_file(lock)))
    with _owned(held, lock, writer):
        yield


@contextmanager
def in_turn(lock: Path, writer: str, target: Path) -> Iterator[None]:
    """Hold `lock` while the block runs, after whoever holds it now; it is deleted afterwards.

    Args:
        lock: as of `exclusive`.
        writer: as of `exclusive`.
        target: what is written, for messages.
    """
    held = _lock(lock)
    try:
        held.acquire(blocking=False)
    except Timeout:
        log.info("%s writes to %s; waiting until it is done.", _describe(_owner_file(lock)), target)
        held.acquire()
    with _owned(held, lock, writer):
        try:
            yield
        finally:
            delete(lock)


@contextmanager
def alone(target: Path, writer: str, elsewhere: str) -> Iterator[None]:
    """Write `target` while the block runs as the only process, or be refused at once: two would leave parts of each.

    Args:
        target: a file or folder; the lock lies beside it, and is deleted afterwards.
        writer: as of `exclusive`.
        elsewhere: as of `exclusive`.

    Raises:
        InUseError: as of `exclusive`.
    """
    lock = target.with_name(f".{target.name}.lock")
    with exclusive(lock, writer, target, elsewhere):
        try:
            yield
        finally:
            delete(lock)


def delete(lock: Path) -> None:
    """Delete a lock that this process holds: one that has opened it meanwhile sees that it has no name, and asks again.

    Where files that are open cannot be deleted, it stays.
    """
    for file in (_owner_file(lock), lock):
        with suppress(OSError):
            file.unlink()


def is_held(lock: Path) -> bool:
    """Whether a process of this machine holds `lock`, by what it said of itself: nobody who asks is in its way."""
    owner = _read_owner(_owner_file(lock))
    return owner is not None and owner.process.is_here and not owner.process.gone


def _lock(lock: Path) -> FileLock:
    lock.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(lock)


def _owner_file(lock: Path) -> Path:
    return lock.with_name(lock.name + ".json")


@contextmanager
def _owned(held: FileLock, lock: Path, writer: str) -> Iterator[None]:
    """Say who holds a lock while the block runs, and let go of it."""
    owner_file = _owner_file(lock)
    try:
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        owner = {
            "writer": writer,
            "process": str(Process.current()),
            "since": now,
            "command": redacted_values(sys.argv),
        }
        write_json(owner_file, owner)
        yield
        owner_file.unlink(missing_ok=True)
    finally:
        held.release()


def _describe(owner_file: Path) -> str:
    """Who holds the lock, as far as that is known: the file is written a moment after the lock is taken."""
    if (owner := _read_owner(owner_file)) is None:
        return "another process, which has not said which,"
    return f"{owner.writer} (process {owner.process.pid} on {owner.process.host}, since {owner.since})"


def _read_owner(owner_file: Path) -> _Owner | None:
    try:
        owner: Any = read_json(owner_file)
        process = Process.parse(owner["process"])
        return _Owner(str(owner["writer"]), process, str(owner["since"])) if process else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
