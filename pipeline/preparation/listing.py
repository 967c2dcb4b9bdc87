"""The recordings of a corpus, listed on disk: whoever works on some of them reads those alone."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from pipeline.audio.corpora.corpus import Recording
from pipeline.audio.source import Source
from pipeline.plumbing.database import reading_database, writing_database

SCHEMA = "CREATE TABLE recordings (position INTEGER PRIMARY KEY, recording TEXT NOT NULL)"


def write_listing(recordings: Iterable[Recording], path: Path) -> int:
    """Write the listing, the recordings passing one after the other; returns how many there are."""
    with writing_database(path, SCHEMA) as database:
        rows = ((to_json(recording),) for recording in recordings)
        return database.executemany("INSERT INTO recordings (recording) VALUES (?)", rows).rowcount


def count_listed(path: Path) -> int:
    """How many recordings a listing holds."""
    with reading_database(path) as database:
        return int(database.execute("SELECT COUNT(*) FROM recordings").fetchone()[0])


def read_listing(path: Path, start: int, stop: int) -> Sequence[Recording]:
    """The recordings from the position `start`, counted from 0, up to the one before `stop`."""
    with reading_database(path) as database:
        rows = database.execute(
            "SELECT recording FROM recordings WHERE position > ? AND position <= ? ORDER BY position", (start, stop)
        )
        return [from_json(text) for (text,) in rows]


def iterate_listing(path: Path) -> Iterator[Recording]:
    """All recordings of a listing, in order."""
    with reading_database(path) as database:
        for (text,) in database.execute("SELECT recording FROM recordings ORDER BY position"):
            yield from_json(text)


def to_json(recording: Recording) -> str:
    """A recording in one line."""
    return json.dumps(vars(recording), default=vars)


def from_json(text: str) -> Recording:
    """The recording that `to_json` wrote."""
    values = json.loads(text)
    source = values.pop("source")
    return Recording(**values, source=Source(**source) if source else None)
