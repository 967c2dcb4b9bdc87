"""SQLite as a format of files: tables too large for memory, written whole or not at all, then read by many at once."""

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from pipeline.plumbing.files import atomic_write

# Pages that a connection keeps in memory, in KiB; sorting spills to a temporary file beyond.
CACHE_KIB = 8192


@contextmanager
def writing_database(path: Path, schema: str) -> Iterator[sqlite3.Connection]:
    """Yield a connection to a new database with these tables, which takes the name `path` when the block ends well.

    Raises:
        OSError: the disk takes no more.
    """
    with atomic_write(path) as temporary:
        temporary.unlink(missing_ok=True)
        # Nobody else knows the file: it needs neither locks, which some network file systems lack, nor a journal.
        with closing(sqlite3.connect(f"{temporary.absolute().as_uri()}?nolock=1", uri=True)) as connection:
            try:
                connection.executescript(
                    f"PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -{CACHE_KIB}; {schema}"
                )
                yield connection
                connection.commit()
            except sqlite3.OperationalError as error:
                full = error.sqlite_errorcode in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE)
                number = errno.ENOSPC if full else errno.EIO
                raise OSError(number, f"{os.strerror(number)} ({error})", str(path)) from error


@contextmanager
def reading_database(path: Path) -> Iterator[sqlite3.Connection]:
    """Yield a connection to a finished database, which processes on any machine may read at the same time.

    Raises:
        FileNotFoundError: it does not exist.
        ValueError: it is damaged.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; run the stage that writes it again.")
    # A finished database never changes: no lock is asked for.
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?immutable=1", uri=True)) as connection:
        try:
            connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
            yield connection
        except sqlite3.DatabaseError as error:
            raise ValueError(f"{path} is damaged ({error}); remove it, and run the same command again.") from error
