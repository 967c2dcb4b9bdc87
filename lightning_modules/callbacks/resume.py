"""The checkpoints that an interrupted training goes on from."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L  # noqa: N812
from lightning.pytorch.callbacks import Checkpoint

from lightning_modules.callbacks.best import BEST
from lightning_modules.callbacks.saves import (
    best_at,
    checkpoint_path,
    checkpoints_of,
    is_committed,
    saves_of,
    wait_for_saves,
)
from lightning_modules.parallel.checkpoint_folder import remove

STEP = "step"


def step_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints to go on from in `folder`, the oldest first: files of one device, folders of many."""
    return [path for path in checkpoints_of(folder, STEP).values() if is_committed(path)]


def prune(folder: Path, keep_last: int) -> None:
    """Remove all but the last few checkpoints to go on from, and the best ones that none of those refers to.

    The newest best one stays: the next checkpoint will refer to it.
    """
    steps = checkpoints_of(folder, STEP)
    committed = [step for step, path in steps.items() if is_committed(path)]
    for step in committed[:-keep_last]:
        remove(steps[step])
    best = checkpoints_of(folder, BEST)
    referred = {best_at(best, step) for step in committed[-keep_last:]} | {max(best, default=None)}
    for step in best.keys() - referred:
        remove(best[step])


class ResumeCheckpoint(Checkpoint):
    """Writes everything training needs to go on, every `every_n_steps` optimizer steps, and keeps the last few.

    A step is saved when the next one begins, or training ends: validated if it is to be, and with all that was logged
    of it. A training that goes on from there has lost nothing of the step. Of a validated step the best checkpoint, if
    it is one, is written first (see BestCheckpoint), and so is always there when one to go on from refers to it.

    Where saves are written in the background, older checkpoints are removed there as well, once the new one is whole.

    Args:
        folder: where the checkpoints lie, under names with their step.
        every_n_steps: optimizer steps from one to the next.
        keep_last: how many stay.
    """

    def __init__(self, folder: Path, every_n_steps: int, keep_last: int = 2) -> None:
        self.folder = folder
        self.every_n_steps = every_n_steps
        self.keep_last = keep_last
        self._saved_step = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Count from where training starts or goes on."""
        self._saved_step = trainer.global_step

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Save the step before, if it is due."""
        # What is logged of a step bears this number, which Lightning counts up once too often when training goes on
        # from a step that was validated.
        trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step
        self._save_if_due(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save the last step, if it is due, and wait for the saves under way."""
        self._save_if_due(trainer)
        wait_for_saves(trainer)

    def save(self, trainer: L.Trainer) -> None:
        """Save at this optimizer step, unless that has been done."""
        step = trainer.global_step
        if step <= self._saved_step:
            return
        self._saved_step = step
        with _between_batches(trainer):
            trainer.save_checkpoint(checkpoint_path(trainer, self.folder, STEP, step), weights_only=False)
        if not trainer.is_global_zero:
            return
        if (saves := saves_of(trainer)) is not None:
            saves.afterwards(lambda: prune(self.folder, self.keep_last))
        else:
            prune(self.folder, self.keep_last)

    def _save_if_due(self, trainer: L.Trainer) -> None:
        if trainer.global_step % self.every_n_steps == 0:
            self.save(trainer)


@contextmanager
def _between_batches(trainer: L.Trainer) -> Iterator[None]:
    """As far as Lightning's progress tells, the batch that is about to begin has not been fetched."""
    progress = trainer.fit_loop.epoch_loop.batch_progress
    fetched = progress.current.ready - progress.current.completed
    for count in (progress.total, progress.current):
        count.ready -= fetched
    try:
        yield
    finally:
        for count in (progress.total, progress.current):
            count.ready += fetched
