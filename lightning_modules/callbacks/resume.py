"""The checkpoint that an interrupted training goes on from."""

from pathlib import Path
from typing import Any

import lightning as L  # noqa: N812
from lightning.pytorch.callbacks import Checkpoint

LAST_CHECKPOINT = "last.ckpt"


class ResumeCheckpoint(Checkpoint):
    """Writes everything training needs to go on, every `every_n_steps` optimizer steps, over the one before.

    At a step that is also validated, the checkpoint waits until validation is done: a training that goes on from it
    has then lost neither the validation nor the best checkpoint that came of it. (Lightning calls checkpoint callbacks
    last, in the order given: being one, this one comes after the keeper of the best if it stands behind it.)
    """

    def __init__(self, folder: Path, every_n_steps: int, val_every_steps: int) -> None:
        self.folder = folder
        self.every_n_steps = every_n_steps
        self.val_every_steps = val_every_steps
        self._saved_step = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Count from where training starts or goes on."""
        self._saved_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save, unless validation comes first, as it does at the last step in any case."""
        if trainer.global_step % self.val_every_steps and trainer.global_step < trainer.max_steps:
            self._save_if_due(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save what waited for validation."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._save_if_due(trainer)

    def _save_if_due(self, trainer: L.Trainer) -> None:
        step = trainer.global_step
        if step % self.every_n_steps == 0 and step > self._saved_step:
            self._saved_step = step
            # Lightning writes beside and renames.
            trainer.save_checkpoint(self.folder / LAST_CHECKPOINT)
