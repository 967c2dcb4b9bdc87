"""What is on its way to the store, in a file: nothing is lost while the store is away, nor when the process dies."""

import json
import logging
import shutil
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.plumbing.files import atomic_write
from pipeline.plumbing.process import Process

log = logging.getLogger(__name__)

# Records taken at once.
WINDOW = 200


@dataclass(frozen=True)
class Record:
    """One thing to tell the store. Telling it twice changes nothing, because the time is part of it.

    Attributes:
        run_id: the run it belongs to.
        kind: `metrics`, `parameters`, `tags`, `artifact`, `dataset`, `model`, `evaluation`, `note`, `status` or
            `sweep`.
        time: when it happened, in milliseconds since the epoch.
        values: what is told.
        step: the training step of metrics.
    """

    run_id: str
    kind: str
    time: int
    values: Mapping[str, Any]
    step: int = 0


class Journal:
    """Records in a file of JSON lines, delivered from the front while new ones come in at the back.

    The first line names the store and the process. As soon as everything is delivered the file shrinks to that line,
    so what the file holds after a crash is what the store has not been told.

    Args:
        path: the file; what it already holds counts as undelivered.
        store: the tracking URI, without credentials.
    """

    def __init__(self, path: Path, store: str) -> None:
        self.path = path
        self.store = store
        self._lock = threading.Lock()
        kept = _complete_lines(path)[1:]
        header = {"store": store, "process": str(Process.current())}
        self._front = len(_line(header))
        with atomic_write(path) as temporary:
            temporary.write_bytes(b"".join([_line(header), *kept]))
        self._file = path.open("r+b")
        self._back = self._file.seek(0, 2)
        self.pending = len(kept)

    def append(self, record: Record) -> None:
        """Add a record at the back."""
        line = _line(asdict(record))
        with self._lock:
            self._file.seek(self._back)
            self._file.write(line)
            self._file.flush()
            self._back += len(line)
            self.pending += 1

    def front(self, limit: int = WINDOW) -> list[Record]:
        """The next records to deliver. A line that is no record is taken out, with a warning."""
        records: list[Record] = []
        with self._lock:
            self._file.seek(self._front)
            while len(records) < limit and self._file.tell() < self._back:
                line = self._file.readline()
                try:
                    records.append(Record(**json.loads(line)))
                except (ValueError, TypeError):
                    if records:
                        break
                    log.warning("%s holds a line that is no record; it is left out.", self.path)
                    self._advance(len(line), 1)
        return records

    def delivered(self, n: int) -> None:
        """Take the first `n` records out."""
        with self._lock:
            self._file.seek(self._front)
            self._advance(sum(len(self._file.readline()) for _ in range(n)), n)
            if not self.pending:
                self._file.seek(0)
                self._front = self._back = len(self._file.readline())
                self._file.truncate(self._back)

    def postpone(self, n: int) -> None:
        """Let the first `n` records go to the back: what follows them may be taken meanwhile."""
        with self._lock:
            self._file.seek(self._front)
            lines = b"".join(self._file.readline() for _ in range(n))
            self._file.seek(self._back)
            self._file.write(lines)
            self._file.flush()
            self._front += len(lines)
            self._back += len(lines)

    def close(self) -> None:
        """Close the file with what is left in it, and delete it when nothing is."""
        with self._lock:
            if self.pending and not self._file.closed:
                self._keep_what_is_left()
            self._file.close()
            if not self.pending:
                self.path.unlink(missing_ok=True)

    def _keep_what_is_left(self) -> None:
        """Write the file anew; where the disk is full it stays whole, and telling a record twice changes nothing."""
        with suppress(OSError), atomic_write(self.path) as temporary, temporary.open("wb") as left:
            self._file.seek(0)
            left.write(self._file.readline())
            self._file.seek(self._front)
            shutil.copyfileobj(self._file, left)

    def _advance(self, length: int, n: int) -> None:
        self._front += length
        self.pending -= n


def owner(path: Path) -> tuple[str, Process | None] | None:
    """The store and the process that a journal names; None when there is no such file, or it is no journal."""
    lines = _complete_lines(path)
    try:
        header = json.loads(lines[0])
        return str(header["store"]), Process.parse(str(header["process"]))
    except (IndexError, KeyError, TypeError, ValueError):
        return None


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, default=str).encode() + b"\n"


def _complete_lines(path: Path) -> list[bytes]:
    """The file's lines, without a last one that an interruption cut short."""
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    return [line for line in lines if line.endswith(b"\n")]
