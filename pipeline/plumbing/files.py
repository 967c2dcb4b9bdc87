"""Small files written whole or not at all, and read with errors that name them."""

import csv
import errno
import json
import os
import re
import shutil
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import yaml

# The machine's name as file names take it: several machines may write into one folder.
HOST = re.sub(r"[^\w-]", "-", socket.gethostname())
# What is being written, with the id of the process that writes, and the machine that it runs on.
PARTIAL_NAME = re.compile(r"\..+\.(?P<pid>\d+)(@(?P<host>[\w-]+))?\.partial(\.\w+)?")
# No space, too large a file, the quota is used up.
OF_FULL_DISK = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Have the errors of a full disk within name `path`: the operating system does not say what was written."""
    try:
        yield
    except OSError as error:
        if error.errno in OF_FULL_DISK and error.filename is None:
            error.filename = str(path)
        raise


@contextmanager
def atomic_write(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`, and rename it onto `path` when the block ends without an error."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The process id keeps two writers apart; the suffix stays last because writers read the format from it.
    temporary = path.with_name(f".{path.stem}.{os.getpid()}@{HOST}.partial{path.suffix}")
    try:
        with naming(path):
            yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path | str) -> Iterator[Path]:
    """Yield an empty folder beside `path`, which takes the place of `path` when the block ends without an error."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}@{HOST}.partial")
    # One may be left of a process that was killed and had the same id.
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        with naming(path):
            yield temporary
        if path.exists():
            shutil.rmtree(path)
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def link_or_copy(source: str, target: str) -> None:
    """A second name for a file that nothing changes once it is written, where the file system has such; else a copy."""
    Path(target).unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def sweep(folder: Path | str) -> list[Path]:
    """Remove what killed processes were writing below `folder`, and return it; what a living one writes stays.

    A process id is given to another process sooner or later: one that began after the last change is not the writer.
    What another machine's processes write stays, since nobody here can tell whether they live.
    """
    left = [path for path in Path(folder).rglob(".*.partial*") if _is_leftover(path)]
    _remove(left)
    return left


def sweep_of_all_machines(folder: Path | str) -> None:
    """Remove what any process on any machine was writing below `folder`, which nobody writes to any more."""
    _remove([path for path in Path(folder).rglob(".*.partial*") if PARTIAL_NAME.fullmatch(path.name)])


def _remove(left: Iterable[Path]) -> None:
    for path in left:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _is_leftover(path: Path) -> bool:
    match = PARTIAL_NAME.fullmatch(path.name)
    if match is None or path.is_symlink() or match["host"] not in (None, HOST):
        return False
    try:
        return psutil.Process(int(match["pid"])).create_time() > path.stat().st_mtime
    except psutil.NoSuchProcess:
        return True
    except (psutil.Error, OSError, OverflowError):
        return False


def write_json(path: Path | str, value: Any) -> None:
    """Write `value` as indented JSON."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, allow_nan=True) + "\n", encoding="utf-8")


def write_metrics(folder: Path, metrics: Mapping[str, float], headline: Sequence[str]) -> None:
    """Write `metrics.json`, and beside it `headline.json` with the few that experiments are compared by."""
    write_json(folder / "metrics.json", metrics)
    write_json(folder / "headline.json", {name: metrics[name] for name in headline if name in metrics})


def write_yaml(path: Path | str, value: Any) -> None:
    """Write `value` as YAML, in its own order."""
    with atomic_write(path) as temporary:
        temporary.write_text(yaml.safe_dump(value, sort_keys=False, allow_unicode=True), encoding="utf-8")


def read_yaml(path: Path | str) -> Any:
    """Read a YAML file; a missing or malformed file raises an error that names it."""
    return _read(Path(path), "YAML", yaml.safe_load, yaml.YAMLError)


def read_json(path: Path | str) -> Any:
    """Read a JSON file; a missing or malformed file raises an error that names it."""
    return _read(Path(path), "JSON", json.loads, json.JSONDecodeError)


def _read(path: Path, language: str, parse: Callable[[str], Any], malformed: type[Exception]) -> Any:
    try:
        return parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist; run the stage that writes it first.") from None
    except (malformed, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} is not valid {language} ({reason}); delete it and run its stage again.") from None


def write_csv(path: Path | str, rows: Iterable[Mapping[str, Any]], columns: Sequence[str] | None = None) -> None:
    """Write rows as CSV; absent cells stay blank.

    Args:
        path: the file.
        rows: which pass one after the other where the columns are given.
        columns: None takes the keys met, in order of first appearance.
    """
    if columns is None:
        rows = list(rows)
        columns = list(dict.fromkeys(key for row in rows for key in row))
    with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def read_csv(path: Path | str) -> list[dict[str, str]]:
    """Read a CSV file with a header into one dictionary of strings a row.

    Raises:
        FileNotFoundError: naming it, when it is not there.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; run the stage that writes it first.")
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def companion(result: Path, name: str) -> Path:
    """Where a file that belongs to a result lies: in its folder, or beside its single file, with its name before it."""
    return result / name if result.is_dir() else result.with_name(f"{result.name}.{name}")
