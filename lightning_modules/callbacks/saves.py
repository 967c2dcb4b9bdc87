"""Checkpoints of a training by name, and the saves of them that are under way."""

import re
from collections.abc import Iterable
from pathlib import Path

import lightning as L  # noqa: N812
from lightning.pytorch.strategies import ModelParallelStrategy

from lightning_modules.parallel.background_saves import BackgroundSaves
from lightning_modules.parallel.checkpoint_folder import is_sharded

NAME = re.compile(r"(?P<kind>[a-z]+)-(?P<step>\d{8,})(\.ckpt)?")


def checkpoint_path(trainer: L.Trainer, folder: Path, kind: str, step: int) -> Path:
    """Where a checkpoint lies that this trainer writes: a file of one device, a folder of many."""
    suffix = "" if isinstance(trainer.strategy, ModelParallelStrategy) else ".ckpt"
    return folder / f"{kind}-{step:08d}{suffix}"


def checkpoints_of(folder: Path, kind: str) -> dict[int, Path]:
    """Every checkpoint of a kind in `folder` by its step, the oldest first; also those that are damaged."""
    matches = {path: NAME.fullmatch(path.name) for path in folder.glob(f"{kind}-*")}
    found = {int(match["step"]): path for path, match in matches.items() if match and match["kind"] == kind}
    return dict(sorted(found.items()))


def is_committed(path: Path) -> bool:
    """Whether a checkpoint got its name by being whole: a file, or a folder with all that describes it."""
    return path.is_file() or is_sharded(path)


def best_at(steps: Iterable[int], step: int) -> int | None:
    """Which of the best checkpoints was the best at `step`: the newest until then. None: there was none."""
    return max((best for best in steps if best <= step), default=None)


def saves_of(trainer: L.Trainer) -> BackgroundSaves | None:
    """The saves under way; None where the trainer saves while training waits."""
    for saver in (trainer.strategy, trainer.strategy.checkpoint_io):
        saves = getattr(saver, "saves", None)
        if isinstance(saves, BackgroundSaves):
            return saves
    return None


def wait_for_saves(trainer: L.Trainer) -> None:
    """Return when no save is under way in the background; its error, if it had one, is raised here."""
    if (saves := saves_of(trainer)) is not None:
        saves.wait()
