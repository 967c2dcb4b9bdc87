"""Kills: at every file operation of a stage, and at random moments; then the same command again."""

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

from tests.drills.interrupted.stage import Stage, Trial, fresh, outputs_of, rerun, run, sample


def kill_at_file_operations(stage: Stage, folder: Path, n: int | None = None, seed: int = 1) -> Iterator[Trial]:
    """Kill the stage before each of its file operations, or before `n` of them, and run it again.

    Args:
        stage: what is killed.
        folder: where it works; everything in it is deleted.
        n: how many of the operations; None: all.
        seed: of their choice.
    """
    fresh(stage, folder)
    whole = run(stage, folder)
    if whole.code != 0:
        raise RuntimeError(f"{stage.module} fails by itself: {whole.printed}")
    expected = outputs_of(stage, folder)
    for number in sample(range(len(whole.operations)), n, seed):
        fresh(stage, folder)
        run(stage, folder, kill_at=number)
        yield Trial(f"killed before operation {number}, {whole.operations[number]}", rerun(stage, folder, expected))
    shutil.rmtree(folder)


def kill_at_random_moments(stage: Stage, folder: Path, n: int, seed: int = 1) -> Iterator[Trial]:
    """Kill the stage `n` times at moments by chance, each time in a fresh folder, and run it again."""
    fresh(stage, folder)
    whole = run(stage, folder)
    if whole.code != 0:
        raise RuntimeError(f"{stage.module} fails by itself: {whole.printed}")
    expected, chance = outputs_of(stage, folder), random.Random(seed)
    for _ in range(n):
        fresh(stage, folder)
        moment = chance.uniform(0, whole.seconds)
        run(stage, folder, kill_after=moment)
        yield Trial(f"killed after {moment:.2f} s of {whole.seconds:.2f}", rerun(stage, folder, expected))
    shutil.rmtree(folder)
