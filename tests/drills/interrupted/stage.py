"""A stage run in processes that may be killed, and what it wrote."""

import csv
import hashlib
import io
import json
import os
import random
import runpy
import shutil
import signal
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

# What a file operation is to Python's audit hooks. Opening counts where it is for writing.
OPERATIONS = frozenset(
    {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "os.chmod"}
)
# Measured, not computed: not the same twice.
MEASURED = ("throughput",)


@dataclass(frozen=True)
class Stage:
    """A command of the pipeline that reads and writes below one folder.

    Attributes:
        module: as `python -m` takes it.
        overrides: its arguments; `{folder}` stands for the folder.
        outputs: what it writes, relative to the folder: compared byte for byte.
        input: a folder that is copied before each trial, and holds what the stage reads.
    """

    module: str
    overrides: tuple[str, ...]
    outputs: tuple[str, ...]
    input: Path


@dataclass(frozen=True)
class Trial:
    """One fault.

    Attributes:
        fault: what was done.
        lost: what went wrong by it; empty: the stage came back to equal bytes.
    """

    fault: str
    lost: str


@dataclass(frozen=True)
class Run:
    """A process that has ended.

    Attributes:
        code: its exit code; negative: the signal.
        operations: file operations below the folder, as far as they were counted.
        seconds: how long it took.
        printed: its last lines.
    """

    code: int
    operations: list[str] = field(repr=False)
    seconds: float
    printed: str = field(repr=False)


def fresh(stage: Stage, folder: Path) -> None:
    """Put the stage's input, and nothing else, into `folder`."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(stage.input, folder, copy_function=os.link)


def run(stage: Stage, folder: Path, kill_at: int | None = None, kill_after: float | None = None) -> Run:
    """Run a stage in a process of its own.

    Args:
        stage: what.
        folder: where.
        kill_at: the process kills itself before its file operation of this number, from 0.
        kill_after: it is killed after this many seconds.
    """
    context = get_context("forkserver")
    # What takes seconds to import is imported once.
    context.set_forkserver_preload(["pipeline.training.train"])
    notes = folder.with_name(folder.name + ".operations")
    printed = folder.with_name(folder.name + ".printed")
    for path in (notes, printed):
        path.unlink(missing_ok=True)
    process = context.Process(target=_enter, args=(stage, folder, kill_at, notes, printed), daemon=True)
    begun = time.monotonic()
    process.start()
    process.join(timeout=kill_after if kill_after is not None else 600)
    if process.is_alive():
        process.kill()
        process.join()
    operations = notes.read_text().splitlines() if notes.exists() else []
    lines = printed.read_text(errors="replace").splitlines()[-15:] if printed.exists() else []
    assert process.exitcode is not None
    return Run(process.exitcode, operations, time.monotonic() - begun, "\n".join(lines))


def outputs_of(stage: Stage, folder: Path) -> dict[str, str]:
    """A digest of every file the stage wrote, measured figures left out: {path relative to the folder: SHA-256}."""
    digests = {}
    for name in stage.outputs:
        path = folder / name
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            if file.is_file():
                content = _comparable(file)
                digests[file.relative_to(folder).as_posix()] = hashlib.sha256(content).hexdigest()
    return digests


def compare(expected: Mapping[str, str], found: Mapping[str, str]) -> str:
    """What is missing, left over or different, in words; empty when all is equal."""
    missing, extra = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    changed = sorted(name for name in expected.keys() & found.keys() if expected[name] != found[name])
    problems = [
        f"{what} {', '.join(names[:5])}"
        for what, names in (("missing:", missing), ("left over:", extra), ("different:", changed))
        if names
    ]
    return "; ".join(problems)


def rerun(stage: Stage, folder: Path, expected: Mapping[str, str]) -> str:
    """Run the stage after a fault; say what is lost, if anything is."""
    again = run(stage, folder)
    if again.code != 0:
        return f"the next run ends with code {again.code}: {again.printed}"
    return compare(expected, outputs_of(stage, folder))


def sample(numbers: Iterable[int], n: int | None, seed: int) -> list[int]:
    """`n` of the numbers by chance, in order; all of them without `n`."""
    everything = list(numbers)
    if n is None or n >= len(everything):
        return everything
    return sorted(random.Random(seed).sample(everything, n))


def _enter(stage: Stage, folder: Path, kill_at: int | None, notes: Path, printed: Path) -> None:
    output = os.open(printed, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, sys.stdout.fileno())
    os.dup2(output, sys.stderr.fileno())
    note = os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    count = 0

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event not in OPERATIONS or not _writes_below(str(folder), event, arguments):
            return
        if count == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        count += 1
        os.write(note, f"{event} {arguments[0]!s}\n".encode())

    sys.addaudithook(watch)
    sys.argv[1:] = [override.replace("{folder}", str(folder)) for override in stage.overrides]
    runpy.run_module(stage.module, run_name="__main__", alter_sys=True)


def _writes_below(folder: str, event: str, arguments: tuple[Any, ...]) -> bool:
    """Whether a file operation changes something below `folder`; removals relative to an open folder are taken to."""
    path = arguments[0]
    if isinstance(path, bytes):
        path = path.decode(errors="replace")
    if event == "open":
        return isinstance(path, str) and path.startswith(folder) and bool(arguments[2] & (os.O_WRONLY | os.O_RDWR))
    relative = isinstance(path, str) and not os.path.isabs(path) and event in ("os.remove", "os.rmdir")
    return relative or str(path).startswith(folder)


def _comparable(file: Path) -> bytes:
    """A file's content without the figures that are measured."""
    content = file.read_bytes()
    if file.suffix == ".json":
        values = json.loads(content)
        if isinstance(values, dict):
            kept = {name: value for name, value in values.items() if not name.startswith(MEASURED)}
            return json.dumps(kept).encode()
    if file.suffix == ".csv":
        rows = list(csv.DictReader(io.StringIO(content.decode())))
        return json.dumps(
            [{name: value for name, value in row.items() if not name.startswith(MEASURED)} for row in rows]
        ).encode()
    return content
