"""Validation at the very last step, whatever the interval between validations."""

from typing import Any

import lightning as L  # noqa: N812


class FinalValidation(L.Callback):
    """Asks for validation after the last optimizer step: the best checkpoint may be the last."""

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop at the last step, before which Lightning validates; reaching `max_steps` alone would not."""
        if trainer.global_step >= trainer.max_steps:
            trainer.should_stop = True
