"""Damage to what an interrupted training left: every file of it, in several ways; then the same command again."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.drills.interrupted.stage import Stage, Trial, fresh, outputs_of, rerun, run, sample


def _flip(path: Path) -> None:
    if not (content := bytearray(path.read_bytes())):
        return
    content[len(content) // 2] ^= 0x10
    _write(path, bytes(content))


def _write(path: Path, content: bytes) -> None:
    """Write a new file: the old one may have other names."""
    path.unlink()
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "missing": Path.unlink,
    "empty": lambda path: _write(path, b""),
    "cut": lambda path: _write(path, path.read_bytes()[: path.stat().st_size // 2]),
    "flipped": _flip,
    "garbage": lambda path: _write(path, os.urandom(300)),
    "a list": lambda path: _write(path, b"[1, 2]"),
}


def damage_what_was_left(
    stage: Stage, folder: Path, kill_at: int, left: str, spared: tuple[str, ...] = (), n: int | None = None
) -> Iterator[Trial]:
    """Kill the stage once, damage one file that it left, run it again; and so for every file and damage.

    Args:
        stage: what is killed.
        folder: where it works; everything in it is deleted.
        kill_at: before which file operation.
        left: what is damaged, relative to the folder.
        spared: endings of names that are not damaged.
        n: how many of the damages; None: all.
    """
    fresh(stage, folder)
    whole = run(stage, folder)
    if whole.code != 0:
        raise RuntimeError(f"{stage.module} fails by itself: {whole.printed}")
    expected = outputs_of(stage, folder)
    fresh(stage, folder)
    run(stage, folder, kill_at=kill_at)
    snapshot = folder.with_name(folder.name + ".left")
    shutil.rmtree(snapshot, ignore_errors=True)
    folder.rename(snapshot)
    files = [path.relative_to(snapshot) for path in sorted((snapshot / left).rglob("*")) if path.is_file()]
    cases = [(file, damage) for file in files if not file.name.endswith(spared) for damage in DAMAGES]
    for number in sample(range(len(cases)), n, seed=1):
        file, damage = cases[number]
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(snapshot, folder)
        DAMAGES[damage](folder / file)
        yield Trial(f"{file} {damage}", rerun(stage, folder, expected))
    shutil.rmtree(folder)
    shutil.rmtree(snapshot)
