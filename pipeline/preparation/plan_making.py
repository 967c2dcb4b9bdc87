"""From what was found in every recording to the plan: copies marked, splits drawn, utterances laid out and ordered.

All of it happens on disk, in tables that SQLite sorts and joins: memory holds a few recordings at a time.
"""

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from pipeline.audio.configuration import ScreeningConfig, SplitConfig, UtteranceConfig
from pipeline.audio.splitting import SPLITS, seeded_hash, split_sizes
from pipeline.audio.utterances import lay_out, utterance_name
from pipeline.plumbing.database import writing_database
from pipeline.plumbing.names import printable
from pipeline.preparation.configuration import DataConfig
from pipeline.preparation.inspection import Inspection
from pipeline.preparation.listing import to_json
from pipeline.preparation.plan import SCHEMA, Plan
from pipeline.preparation.refusal import listed_when_refused

# Utterances until they are in order.
DRAFTS = "CREATE TEMP TABLE drafts (split TEXT, hash BLOB, id TEXT, speaker TEXT, pieces TEXT, cut TEXT, start REAL)"


def make_plan(findings: Iterable[Inspection], data: DataConfig, path: Path, prepared: Path) -> None:
    """Write the plan `path`.

    Args:
        findings: what was found in every recording, passing one after the other.
        data: what becomes of the corpus.
        path: of the plan.
        prepared: the folder to prepare, beside which is listed what was found when that is not enough.

    Raises:
        ValueError: too much cannot be used, or there is not enough for three splits.
    """
    with writing_database(path, SCHEMA) as database:
        digest = record_findings(database, findings)
        mark_copies(database)
        plan = Plan(database)
        with listed_when_refused(plan, prepared):
            require_usable(plan, data.screening)
            assign_splits(database, data.split, data.seed)
            plan_utterances(database, data.utterances, data.seed)
            _require_all_splits(plan)
        database.execute("INSERT INTO facts VALUES ('digest', ?)", (json.dumps(digest),))


def record_findings(database: sqlite3.Connection, findings: Iterable[Inspection]) -> str:
    """Write what was found in every recording, and return the digest of it."""
    digest = hashlib.sha256()

    def rows() -> Iterator[tuple[Any, ...]]:
        for i in findings:
            take = (None, None) if i.take is None else (i.take.n_frames, i.take.channel)
            found = (to_json(i.recording), i.seconds, i.sha256, i.reason, i.note, *take)
            digest.update(json.dumps(found).encode())
            yield (i.recording.id, i.recording.speaker, i.recording.split, *found)

    database.executemany(
        "INSERT INTO recordings (id, speaker, published, recording, seconds, sha256, reason, note, n_frames, channel) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        rows(),
    )
    database.execute("CREATE INDEX ids ON recordings (id)")
    return digest.hexdigest()


def mark_copies(database: sqlite3.Connection) -> None:
    """Reject usable recordings whose samples another one has too, but for the first of them by id."""
    database.executescript(
        """
        CREATE TEMP TABLE originals (sha256 TEXT PRIMARY KEY, id TEXT);
        INSERT INTO originals
            SELECT sha256, MIN(id) FROM recordings WHERE reason = '' GROUP BY sha256 HAVING COUNT(*) > 1;
        UPDATE recordings
            SET reason = 'duplicate of ' || (SELECT o.id FROM originals o WHERE o.sha256 = recordings.sha256)
            WHERE reason = '' AND id <> (SELECT o.id FROM originals o WHERE o.sha256 = recordings.sha256);
        DROP TABLE originals;
        """
    )


def require_usable(plan: Plan, config: ScreeningConfig) -> None:
    """Raise a ValueError when more than `config.max_rejected_fraction` of the recordings cannot be used."""
    n_rejected, n_recordings = plan.count_rejected(), plan.count_recordings()
    if n_rejected > config.max_rejected_fraction * n_recordings:
        examples = "; ".join(f"{printable(i.recording.id)}: {i.reason}" for i in plan.rejected(5))
        raise ValueError(
            f"{n_rejected} of {n_recordings} recordings cannot be used, more than "
            f"data.screening.max_rejected_fraction ({config.max_rejected_fraction}) allows. The first: {examples}. "
            "Mend or remove them, or raise the fraction."
        )


def assign_splits(database: sqlite3.Connection, config: SplitConfig, seed: int) -> None:
    """Give each usable recording its split.

    Where the corpus publishes a recording's split, that one is taken. The splits that it does not publish are drawn
    from the other recordings: groups (files or speakers) in the order of their seeded hashes, so that the result does
    not depend on the order in which a file system lists them.

    Raises:
        ValueError: there are too few groups for the splits to be drawn, or the published splits are unknown or leave
            one empty.
    """
    published = _take_published_splits(database)
    group = "id" if config.by == "file" else "speaker"
    rest = "reason = '' AND published IS NULL"
    (n_groups,) = database.execute(f"SELECT COUNT(DISTINCT {group}) FROM recordings WHERE {rest}").fetchone()
    drawn = [split for split in SPLITS if split not in published]
    if published and drawn and not n_groups:
        raise ValueError(f"the corpus's own split leaves {drawn[0]} without a usable recording; is it complete?")
    sizes = split_sizes(n_groups, drawn, config)
    database.create_function("seeded_hash", 1, lambda name: seeded_hash(name, seed), deterministic=True)
    names = database.execute(
        f"SELECT name FROM (SELECT DISTINCT {group} AS name FROM recordings WHERE {rest}) "
        "ORDER BY seeded_hash(name), name LIMIT ?",
        (sum(sizes.values()),),
    )
    database.execute("CREATE TEMP TABLE drawn (name TEXT PRIMARY KEY, split TEXT)")
    held_out = (split for split, size in sizes.items() for _ in range(size))
    database.executemany(
        "INSERT INTO drawn VALUES (?, ?)", ((name, split) for (name,), split in zip(names, held_out, strict=True))
    )
    database.execute(
        f"UPDATE recordings SET split = COALESCE((SELECT split FROM drawn WHERE name = {group}), 'train') WHERE {rest}"
    )


def plan_utterances(database: sqlite3.Connection, config: UtteranceConfig, seed: int) -> None:
    """Lay the recordings out as utterances, in a seeded random order, so that their beginning is a fair sample."""
    database.execute(DRAFTS)
    database.executemany("INSERT INTO drafts VALUES (?, ?, ?, ?, ?, ?, ?)", _drafts(database, config, seed))
    ordered = database.execute("SELECT split, id, speaker, pieces, cut, start FROM drafts ORDER BY split, hash")
    database.executemany(
        "INSERT INTO utterances VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            (split, number, *utterance)
            for split, rows in groupby(ordered, itemgetter(0))
            for number, (_, *utterance) in enumerate(rows)
        ),
    )
    database.executescript(
        """
        DROP TABLE drafts;
        INSERT INTO long_recordings
            SELECT ROW_NUMBER() OVER (ORDER BY split, MIN(number)) - 1, cut, MIN(number)
            FROM utterances WHERE cut IS NOT NULL GROUP BY cut;
        CREATE INDEX pieces ON utterances (cut, start) WHERE cut IS NOT NULL;
        """
    )


def _take_published_splits(database: sqlite3.Connection) -> set[str]:
    """Give recordings the splits that the corpus publishes; returns these."""
    known = ", ".join(f"'{split}'" for split in SPLITS)
    stranger = database.execute(
        f"SELECT id, published FROM recordings WHERE reason = '' AND published NOT IN ({known}) ORDER BY position"
    ).fetchone()
    if stranger:
        name, split = stranger
        raise ValueError(f"{name}: the corpus puts it into the split {split!r}, which is none of {SPLITS}.")
    database.execute("UPDATE recordings SET split = published WHERE reason = ''")
    return {split for (split,) in database.execute("SELECT DISTINCT split FROM recordings WHERE split IS NOT NULL")}


def _drafts(database: sqlite3.Connection, config: UtteranceConfig, seed: int) -> Iterator[tuple[Any, ...]]:
    """Rows of `drafts`, speaker by speaker."""
    usable = database.execute(
        "SELECT split, speaker, id, seconds FROM recordings WHERE reason = '' ORDER BY split, speaker, id"
    )
    for (split, speaker), rows in groupby(usable, itemgetter(0, 1)):
        recordings = ((name, seconds) for _, _, name, seconds in rows)
        for pieces in lay_out(recordings, config, f"{seed}/{split}/{speaker}"):
            name, first = utterance_name(pieces), pieces[0]
            cut = None if first.start is None else first.recording
            listed = json.dumps([[piece.recording, piece.start, piece.stop] for piece in pieces])
            yield split, seeded_hash(name, seed), name, speaker, listed, cut, first.start


def _require_all_splits(plan: Plan) -> None:
    for split in SPLITS:
        if not plan.count(split):
            raise ValueError(
                f"The split `{split}` gets no utterance of {plan.count_recordings()} recordings; use more recordings, "
                "or a larger share for this split (data.split)."
            )
