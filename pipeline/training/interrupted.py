"""Interrupted trainings that are kept: what they are, how far they came, and how to be rid of them.

Those of queued experiments, whose own folders are gone, are among them.

python -m pipeline.training.interrupted                        list them
python -m pipeline.training.interrupted --remove 3f2a…         remove one, by the beginning of its name
python -m pipeline.training.interrupted --older-than 30        remove those untouched for 30 days
"""

import argparse
import re
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from pipeline.plumbing.files import read_json
from pipeline.plumbing.lock import delete, exclusive, is_held

# Of the folder that the stages write to.
RESUME = "resume"
# Held by the training that writes to an outputs folder.
LOCK = "train.lock"
DESCRIPTION = "training.json"
PROGRAM = "python -m pipeline.training.interrupted"
FOLDER_NAME = re.compile(r"[0-9a-f]{16}")
STEP_NAME = re.compile(r"step-(\d{8,})(\.ckpt)?")


@dataclass(frozen=True)
class InterruptedTraining:
    """A training that was not finished, or is under way.

    Attributes:
        path: its folder, called by its fingerprint.
        name: what it trains, as far as it says so.
        step: of its newest checkpoint; None without one.
        touched: when it last wrote a checkpoint, or began.
        n_bytes: on the disk.
        is_under_way: whether a process of this machine is at it.
    """

    path: Path
    name: str
    step: int | None
    touched: datetime
    n_bytes: int
    is_under_way: bool


def interrupted_trainings(root: Path) -> list[InterruptedTraining]:
    """Every training below `root`, the one that was last at work first."""
    if not root.is_dir():
        return []
    found = [_look_at(path) for path in root.iterdir() if path.is_dir() and FOLDER_NAME.fullmatch(path.name)]
    return sorted(found, key=lambda training: training.touched, reverse=True)


def lock_of(folder: Path) -> Path:
    """What the process holds that writes to the folder of a training."""
    return folder.with_name(folder.name + ".lock")


def remove_training(folder: Path) -> None:
    """Delete the folder of a training, whose lock is held; it loses its name first.

    What cannot be deleted now, the next training does.
    """
    doomed = folder.with_name(folder.name + ".removed")
    shutil.rmtree(doomed, ignore_errors=True)
    folder.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def remove_trainings(trainings: Iterable[InterruptedTraining]) -> None:
    """Delete the folders of trainings.

    Raises:
        pipeline.plumbing.lock.InUseError: when one of them is under way.
    """
    for training in trainings:
        with exclusive(lock_of(training.path), "The removal of this training", training.path):
            remove_training(training.path)
            delete(lock_of(training.path))


def _look_at(path: Path) -> InterruptedTraining:
    steps = [int(match[1]) for entry in path.iterdir() if (match := STEP_NAME.fullmatch(entry.name))]
    files = [file for file in path.rglob("*") if file.is_file()]
    touched = max((file.stat().st_mtime for file in files), default=path.stat().st_mtime)
    n_bytes = sum(file.stat().st_size for file in files)
    return InterruptedTraining(
        path,
        _name_of(path),
        max(steps, default=None),
        datetime.fromtimestamp(touched),
        n_bytes,
        is_held(lock_of(path)),
    )


def _name_of(path: Path) -> str:
    try:
        return str(read_json(path / DESCRIPTION)["name"])
    # A description is for people alone: whatever is wrong with it must not be in the way of a training.
    except (OSError, ValueError, KeyError, TypeError):
        return "?"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="List interrupted trainings, which the same command goes on with, or remove some.",
    )
    parser.add_argument("--outputs", type=Path, default=Path("outputs"), help="the folder that the stages write to")
    parser.add_argument("--remove", metavar="NAME", help="remove the one whose folder's name begins so")
    parser.add_argument("--older-than", metavar="DAYS", type=float, help="remove those untouched for so many days")
    return parser


def _chosen(
    trainings: Sequence[InterruptedTraining], name: str | None, days: float | None
) -> list[InterruptedTraining]:
    """Which trainings to remove.

    Raises:
        ValueError: when the name is that of none, or of several.
    """
    if name is not None:
        chosen = [training for training in trainings if training.path.name.startswith(name)]
        if len(chosen) != 1:
            raise ValueError(f"--remove {name} names {len(chosen)} of {len(trainings)} trainings; it has to name one.")
        return chosen
    if days is not None:
        return [training for training in trainings if training.touched < datetime.now() - timedelta(days=days)]
    return []


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code is 2 when the training named cannot be removed."""
    options = _parser().parse_args(arguments)
    root = options.outputs / RESUME
    trainings = interrupted_trainings(root)
    try:
        chosen = _chosen(trainings, options.remove, options.older_than)
        remove_trainings(chosen)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    for training in trainings:
        reached = f"step {training.step}" if training.step else "no checkpoint"
        state = "removed" if training in chosen else f"{reached}, under way" if training.is_under_way else reached
        touched = training.touched.strftime("%Y-%m-%d %H:%M")
        print(f"{training.path}  {touched}  {training.n_bytes / 1e6:8.1f} MB  {state}  {training.name}")
    if not trainings:
        print(f"No interrupted training lies in {root}.")
    elif not chosen:
        total = sum(training.n_bytes for training in trainings) / 1e6
        print(f"{total:.1f} MB in all. To remove some: {PROGRAM} --older-than DAYS, or --remove NAME.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
