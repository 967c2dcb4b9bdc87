"""The journal of a conversion: which files are whole, so that one that was killed can go on."""

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from lightning_modules.parallel.checkpoint_folder import remove
from pipeline.checkpoints.quantisation import ChunkError
from pipeline.checkpoints.writing.checksums import Checksum, checksum
from pipeline.plumbing.files import atomic_write

JOURNAL_FILE = ".journal.jsonl"


@dataclass(frozen=True)
class Entry:
    """A file that is whole, and how far the numbers in it moved when they were written."""

    name: str
    checksum: Checksum
    rounding: tuple[ChunkError, ...]


class Journal:
    """Lists finished files in the folder that a conversion writes to; the first line tells which conversion it is."""

    def __init__(self, folder: Path, entries: Iterable[Entry]) -> None:
        self.folder = folder
        self.finished = {entry.name: entry for entry in entries}

    @classmethod
    def open(cls, folder: Path, fingerprint: str) -> "Journal":
        """Go on with what lies in `folder`, where it is of the same conversion; else begin with an empty folder.

        Files that are not what the journal says are written again.
        """
        entries = _read(folder / JOURNAL_FILE, fingerprint)
        if entries is None:
            remove(folder)
            folder.mkdir(parents=True)
        whole = [entry for entry in entries or [] if _is_whole(folder / entry.name, entry.checksum)]
        # Anew: a process that was killed may have left half a line at its end.
        with atomic_write(folder / JOURNAL_FILE) as temporary:
            temporary.write_text("".join(line + "\n" for line in (json.dumps(fingerprint), *map(_line, whole))))
        return cls(folder, whole)

    def add(self, name: str, rounding: Iterable[ChunkError], sha256: str | None = None) -> None:
        """Note that a file is whole, once it is on the disk; it is read again where its SHA-256 is not known."""
        path = self.folder / name
        with path.open("rb") as file:
            os.fsync(file.fileno())
        summed = checksum(path) if sha256 is None else Checksum(path.stat().st_size, sha256)
        entry = Entry(name, summed, tuple(rounding))
        self.finished[name] = entry
        with (self.folder / JOURNAL_FILE).open("a", encoding="utf-8") as file:
            file.write(_line(entry) + "\n")
            file.flush()
            os.fsync(file.fileno())


def source_state(path: Path) -> list[tuple[str, int, int]]:
    """The name, size and time of change of every file of a checkpoint."""
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    return [(str(file.resolve()), (stat := file.stat()).st_size, stat.st_mtime_ns) for file in files]


def _read(path: Path, fingerprint: str) -> list[Entry] | None:
    """What a journal lists; None when there is none, or it is of another conversion. A torn last line is ignored."""
    if not path.is_file():
        return None
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    if not lines or lines[0] != json.dumps(fingerprint):
        return None
    entries = []
    for line in lines[1:]:
        try:
            values = json.loads(line)
            rounding = tuple(ChunkError(*chunk) for chunk in values["rounding"])
            entries.append(Entry(values["name"], Checksum(**values["checksum"]), rounding))
        except (json.JSONDecodeError, KeyError, TypeError):
            break
    return entries


def _line(entry: Entry) -> str:
    return json.dumps({"name": entry.name, "checksum": asdict(entry.checksum), "rounding": entry.rounding})


def _is_whole(path: Path, expected: Checksum) -> bool:
    return path.is_file() and path.stat().st_size == expected.n_bytes and checksum(path) == expected
