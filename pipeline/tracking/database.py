"""The sqlite store as a file: made whole or not at all, and looked at before MLflow opens it."""

import logging
import os
import sqlite3
import time
from contextlib import closing
from importlib.resources import files
from pathlib import Path

from alembic.config import Config
from alembic.script import ScriptDirectory
from filelock import FileLock, Timeout
from mlflow.tracking import MlflowClient

from pipeline.plumbing.files import atomic_write
from pipeline.tracking.config import sqlite_uri

log = logging.getLogger(__name__)

REVISION_TABLE = "alembic_version"
MAGIC = b"SQLite format 3\0"
# Seconds: for a writer to let go, for the search for damage, for another process to lay the tables.
LOCK_PATIENCE = 6.0
EXAMINATION = 2.0
LAYING = 60.0
ANOTHER = "move it away, and a new one is made"


def keep_mlflow_silent() -> None:
    """Of a new database it prints two lines, and of every error the whole traceback; what counts is told here."""
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)


def prepare_database(path: Path) -> None:
    """Make sure that `path` is a store that can be written to; make it where there is none.

    Raises:
        OSError: when the file or its folder cannot be written to, is a folder, or is locked by another process.
        ValueError: when it is no sqlite database, is damaged, or is of another release of MLflow.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name a file in it, as in {path.name}/mlflow.db")
    path.parent.mkdir(parents=True, exist_ok=True)
    # sqlite reports neither as an error before MLflow has tried for minutes.
    for place in (path.parent, path):
        if place.exists() and not os.access(place, os.W_OK):
            raise PermissionError(f"{place} is not writable")
    if not _is_begun(path):
        _lay(path)
    _examine(path)


def check_revision(revision: str | None) -> None:
    """Refuse tables that this release of MLflow does not understand; None stands for none at all.

    Raises:
        ValueError: saying whether they are of a newer release or of an older one.
    """
    if revision is None:
        return
    migrations = Config()
    migrations.set_main_option("script_location", str(files("mlflow.store") / "db_migrations").replace("%", "%%"))
    script = ScriptDirectory.from_config(migrations)
    if revision == script.get_current_head():
        return
    if revision not in {entry.revision for entry in script.walk_revisions()}:
        raise ValueError(f"it was written by a newer MLflow (schema {revision}); update mlflow")
    raise ValueError(
        f"it was written by an older MLflow (schema {revision}); back it up and run `mlflow db upgrade` with its URI"
    )


def _is_begun(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


def _lay(path: Path) -> None:
    """Lay the tables in a file beside, and rename it: a kill leaves no half of a store, and two processes make one."""
    lock = FileLock(f"{path}.lock")
    try:
        lock.acquire(timeout=LOCK_PATIENCE)
    except Timeout:
        log.info("Another process is making %s; waiting for it, for at most %d s.", path, LAYING)
        lock.acquire(timeout=LAYING)
    keep_mlflow_silent()
    try:
        if not _is_begun(path):
            with atomic_write(path) as temporary:
                MlflowClient(tracking_uri=sqlite_uri(temporary)).search_experiments(max_results=1)
    finally:
        lock.release()


def _examine(path: Path) -> None:
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise ValueError(f"{path} is no sqlite database, or its beginning is damaged; {ANOTHER}")
    try:
        with closing(sqlite3.connect(path, timeout=LOCK_PATIENCE, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
            _look_for_damage(connection, path)
            tables = connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", [REVISION_TABLE]).fetchall()
            row = connection.execute(f"SELECT version_num FROM {REVISION_TABLE}").fetchone() if tables else None
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise TimeoutError(
                f"{path} is locked by another process, which has held it for {LOCK_PATIENCE:g} s; end that process"
            ) from error
        raise OSError(f"{path}: {error}") from error
    except sqlite3.DatabaseError as error:
        raise ValueError(f"{path} is damaged ({error}); {ANOTHER}") from error
    check_revision(row[0] if row else None)


def _look_for_damage(connection: sqlite3.Connection, path: Path) -> None:
    """Let sqlite check its pages, for two seconds at most: a large store is looked at in part.

    Raises:
        ValueError: when a page is not as sqlite wrote it.
    """
    deadline = time.monotonic() + EXAMINATION
    connection.set_progress_handler(lambda: time.monotonic() > deadline, 10_000)
    try:
        found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.OperationalError as error:
        if "interrupted" not in str(error):
            raise
        return
    finally:
        connection.set_progress_handler(None, 0)
    if found != "ok":
        raise ValueError(f"{path} is damaged ({found.splitlines()[0]}); {ANOTHER}")
