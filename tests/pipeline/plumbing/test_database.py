import errno
import resource
import sqlite3
from pathlib import Path

import pytest

from pipeline.plumbing.database import reading_database, writing_database

SCHEMA = "CREATE TABLE numbers (number INTEGER)"


def write(path: Path, n: int) -> None:
    with writing_database(path, SCHEMA) as database:
        database.executemany("INSERT INTO numbers VALUES (?)", ((number,) for number in range(n)))


def test_what_is_written_can_be_read_by_several_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a ?#%.sqlite"
    write(path, 1000)
    with reading_database(path) as first, reading_database(path) as second:
        assert {d.execute("SELECT SUM(number) FROM numbers").fetchone()[0] for d in (first, second)} == {499500}
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            first.execute("DELETE FROM numbers")
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_block_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    write(path, 3)
    with pytest.raises(KeyError), writing_database(path, SCHEMA):
        raise KeyError("x")
    with reading_database(path) as database:
        assert database.execute("SELECT COUNT(*) FROM numbers").fetchone() == (3,)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_disk_that_takes_no_more_is_an_error_of_the_system(tmp_path: Path) -> None:
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, limit[1]))
    try:
        with pytest.raises(OSError, match="a.sqlite") as caught:
            write(tmp_path / "a.sqlite", 2_000_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert caught.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"not a database, however long it is " * 200])
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    (path := tmp_path / "a.sqlite").write_bytes(content)
    with pytest.raises(ValueError, match="a.sqlite is damaged"), reading_database(path) as database:
        database.execute("SELECT * FROM numbers")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="a.sqlite does not exist"), reading_database(tmp_path / "a.sqlite"):
        pass
