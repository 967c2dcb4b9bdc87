"""What is to be prepared, on disk: what was found in every recording, and every utterance in its place.

Nobody holds all of it: the steps stream through it, and the worker of a shard reads what the shard needs.
"""

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.audio.survey import Take
from pipeline.audio.utterances import Piece, Utterance
from pipeline.plumbing.database import reading_database
from pipeline.preparation.inspection import Inspection
from pipeline.preparation.listing import from_json

# Recordings in the corpus's order; utterances of each split in the order of its documents. `cut` is the recording that
# an utterance is a piece of, where it holds no whole recordings.
SCHEMA = """
CREATE TABLE recordings (
    position INTEGER PRIMARY KEY, id TEXT NOT NULL, speaker TEXT NOT NULL, published TEXT, recording TEXT NOT NULL,
    seconds REAL NOT NULL, sha256 TEXT NOT NULL, reason TEXT NOT NULL, note TEXT NOT NULL, n_frames INTEGER,
    channel INTEGER, split TEXT
);
CREATE TABLE utterances (
    split TEXT, number INTEGER, id TEXT NOT NULL, speaker TEXT NOT NULL, pieces TEXT NOT NULL, cut TEXT, start REAL,
    PRIMARY KEY (split, number)
) WITHOUT ROWID;
CREATE TABLE long_recordings (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, place INTEGER NOT NULL);
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""
_FOUND = "recording, seconds, sha256, reason, note, n_frames, channel"
_UTTERANCE = "id, speaker, split, pieces"


class Plan:
    """An open plan; `plan[id]` is what was found in a recording."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    @classmethod
    @contextmanager
    def open(cls, path: Path) -> "Iterator[Plan]":
        """Open a finished plan, which any number of processes may do.

        Raises:
            FileNotFoundError: there is none.
        """
        with reading_database(path) as database:
            yield cls(database)

    def __getitem__(self, recording: str) -> Inspection:
        row = self._database.execute(
            f"SELECT {_FOUND} FROM recordings WHERE id = ? ORDER BY position DESC LIMIT 1", (recording,)
        ).fetchone()
        if row is None:
            raise ValueError(f"the plan knows no recording {recording!r}.")
        return _inspection(row)

    def fact(self, name: str) -> Any:
        """One of the plan's own facts."""
        (value,) = self._database.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return json.loads(value)

    def count(self, split: str) -> int:
        """Utterances of a split."""
        return self._number("SELECT COUNT(*) FROM utterances WHERE split = ?", split)

    def hours(self, split: str) -> float:
        """How long the utterances of a split last, without the silence between joined recordings."""
        query = """
            SELECT SUM(COALESCE(
                json_extract(piece.value, '$[2]') - COALESCE(json_extract(piece.value, '$[1]'), 0), recordings.seconds
            ))
            FROM utterances, json_each(utterances.pieces) AS piece
            LEFT JOIN recordings ON recordings.id = json_extract(piece.value, '$[0]')
            WHERE utterances.split = ?
        """
        (seconds,) = self._database.execute(query, (split,)).fetchone()
        return (seconds or 0.0) / 3600

    def count_pieces(self, split: str) -> int:
        """Pieces of recordings in the utterances of a split."""
        return self._number("SELECT COALESCE(SUM(json_array_length(pieces)), 0) FROM utterances WHERE split = ?", split)

    def pieces_by_audio(self, split: str) -> Iterator[tuple[int, str]]:
        """The number of an utterance of a split and the SHA-256 of a recording in it, one piece after another."""
        query = """
            SELECT utterances.number, recordings.sha256
            FROM utterances, json_each(utterances.pieces) AS piece
            LEFT JOIN recordings ON recordings.id = json_extract(piece.value, '$[0]')
            WHERE utterances.split = ? ORDER BY utterances.number, piece.key
        """
        return iter(self._database.execute(query, (split,)))

    def count_speakers(self, split: str) -> int:
        """Speakers of a split."""
        return self._number("SELECT COUNT(DISTINCT speaker) FROM utterances WHERE split = ?", split)

    def count_long(self) -> int:
        """Recordings that are cut into utterances."""
        return self._number("SELECT COUNT(*) FROM long_recordings")

    def count_recordings(self) -> int:
        """All recordings."""
        return self._number("SELECT COUNT(*) FROM recordings")

    def count_rejected(self) -> int:
        """Recordings that are not used."""
        return self._number("SELECT COUNT(*) FROM recordings WHERE reason <> ''")

    def count_noted(self) -> int:
        """Recordings that are used, with a note."""
        return self._number("SELECT COUNT(*) FROM recordings WHERE reason = '' AND note <> ''")

    def utterances(self, split: str, start: int = 0, stop: int | None = None) -> Iterator[Utterance]:
        """The utterances of a split from number `start` up to the one before `stop`, in order."""
        stop = self.count(split) if stop is None else stop
        return self._utterances("WHERE split = ? AND number >= ? AND number < ? ORDER BY number", split, start, stop)

    def utterance(self, split: str, number: int) -> Utterance:
        """One utterance of a split."""
        return next(self.utterances(split, number, number + 1))

    def by_recording(self, split: str) -> Iterator[Utterance]:
        """The utterances of a split, the pieces of a recording side by side and in time, where its first one stands."""
        return self._utterances(
            "LEFT JOIN (SELECT name, place FROM long_recordings) ON name = cut WHERE split = ? "
            "ORDER BY COALESCE(place, utterances.number), start, utterances.number",
            split,
        )

    def pieces(self, long_recording: int) -> list[Utterance]:
        """The utterances that a long recording is cut into, in time."""
        return list(
            self._utterances(
                "WHERE cut = (SELECT name FROM long_recordings WHERE number = ?) ORDER BY start", long_recording
            )
        )

    def place(self, piece: Utterance) -> tuple[int, int]:
        """The number of the long recording that an utterance is a piece of, and how many pieces stand before."""
        name, start = piece.pieces[0].recording, piece.pieces[0].start
        return (
            self._number("SELECT number FROM long_recordings WHERE name = ?", name),
            self._number("SELECT COUNT(*) FROM utterances WHERE cut = ? AND start < ?", name, start),
        )

    def recordings(self) -> Iterator[tuple[Inspection, str]]:
        """What was found in every recording, and its split; that is empty where it is not used."""
        for *row, split in self._database.execute(f"SELECT {_FOUND}, split FROM recordings ORDER BY position"):
            yield _inspection(row), split or ""

    def rejected(self, limit: int) -> Iterator[Inspection]:
        """The first recordings that are not used."""
        return self._inspections("reason <> ''", limit)

    def noted(self, limit: int) -> Iterator[Inspection]:
        """The first recordings that are used with a note."""
        return self._inspections("reason = '' AND note <> ''", limit)

    def _inspections(self, condition: str, limit: int) -> Iterator[Inspection]:
        query = f"SELECT {_FOUND} FROM recordings WHERE {condition} ORDER BY position LIMIT ?"
        return map(_inspection, self._database.execute(query, (limit,)))

    def _utterances(self, condition: str, *values: Any) -> Iterator[Utterance]:
        for name, speaker, split, pieces in self._database.execute(
            f"SELECT {_UTTERANCE} FROM utterances {condition}", values
        ):
            yield Utterance(name, speaker, split, tuple(Piece(*piece) for piece in json.loads(pieces)))

    def _number(self, query: str, *values: Any) -> int:
        return int(self._database.execute(query, values).fetchone()[0])


def shards_of(counts: Mapping[str, int], shard_utterances: int) -> list[tuple[str, int]]:
    """The splits, each with how many shards its utterances fill."""
    return [(split, -(-count // shard_utterances)) for split, count in counts.items()]


def _inspection(row: Any) -> Inspection:
    recording, seconds, sha256, reason, note, n_frames, channel = row
    take = None if n_frames is None else Take(n_frames, channel)
    return Inspection(from_json(recording), seconds, sha256, reason, note, take)
