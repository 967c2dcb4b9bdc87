"""The checkpoints that an interrupted training goes on from."""

import re
from pathlib import Path
from typing import Any

import lightning as L  # noqa: N812
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.strategies import ModelParallelStrategy

from lightning_modules.parallel.checkpoint_folder import is_sharded

STEP_NAME = re.compile(r"step-(\d{8,})(\.ckpt)?")


def step_checkpoints(folder: Path) -> list[Path]:
    """The whole checkpoints in `folder`, the oldest first: files of one device, folders of many."""
    steps = {path: match for path in folder.glob("step-*") if (match := STEP_NAME.fullmatch(path.name))}
    whole = [path for path in steps if path.is_file() or is_sharded(path)]
    return sorted(whole, key=lambda path: int(steps[path][1]))


def last_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint in `folder`; None when there is none."""
    return next(reversed(step_checkpoints(folder)), None)


def wait_for_checkpoint(trainer: L.Trainer) -> None:
    """Return when no save is under way in the background; its error, if it had one, is raised here."""
    wait = getattr(trainer.strategy, "wait_for_checkpoint", None)
    if wait is not None:
        wait()


class ResumeCheckpoint(Checkpoint):
    """Writes everything training needs to go on, every `every_n_steps` optimizer steps, and keeps the last few.

    At a step that is also validated, the checkpoint waits until validation is done: a training that goes on from it
    has then lost neither the validation nor the best checkpoint that came of it. (Lightning calls checkpoint callbacks
    last, in the order given: being one, this one comes after the keeper of the best if it stands behind it.)

    A strategy that saves in the background goes on writing while training does. Older checkpoints are removed only once
    the new one is whole: when the next one begins, or training ends.

    Args:
        folder: where the checkpoints lie, under names with their step.
        every_n_steps: optimizer steps from one to the next.
        val_every_steps: optimizer steps from validation to validation.
        keep_last: how many stay.
    """

    def __init__(self, folder: Path, every_n_steps: int, val_every_steps: int, keep_last: int = 2) -> None:
        self.folder = folder
        self.every_n_steps = every_n_steps
        self.val_every_steps = val_every_steps
        self.keep_last = keep_last
        self._saved_step = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Count from where training starts or goes on."""
        self._saved_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save, unless validation comes first, as it does at the last step in any case."""
        if not self.awaits_validation(trainer):
            self._save_if_due(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save what waited for validation."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._save_if_due(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Wait for the save under way."""
        self.finish(trainer)

    def awaits_validation(self, trainer: L.Trainer) -> bool:
        """Whether this optimizer step is validated before it is saved."""
        return trainer.global_step % self.val_every_steps == 0 or trainer.global_step >= trainer.max_steps

    def save(self, trainer: L.Trainer) -> None:
        """Save at this optimizer step, unless that has been done."""
        step = trainer.global_step
        if step > self._saved_step:
            self._saved_step = step
            self.finish(trainer)
            suffix = "" if isinstance(trainer.strategy, ModelParallelStrategy) else ".ckpt"
            trainer.save_checkpoint(self.folder / f"step-{step:08d}{suffix}")

    def finish(self, trainer: L.Trainer) -> None:
        """Wait for the save under way, and remove checkpoints that are no longer kept."""
        wait_for_checkpoint(trainer)
        if trainer.is_global_zero:
            for path in step_checkpoints(self.folder)[: -self.keep_last]:
                trainer.strategy.remove_checkpoint(path)

    def _save_if_due(self, trainer: L.Trainer) -> None:
        if trainer.global_step % self.every_n_steps == 0:
            self.save(trainer)
