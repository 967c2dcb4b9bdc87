"""The best checkpoint by validation loss."""

import math
from pathlib import Path
from typing import Any

import lightning as L  # noqa: N812
from lightning.pytorch.callbacks import Checkpoint

from lightning_modules.callbacks.saves import checkpoint_path

BEST = "best"


class BestCheckpoint(Checkpoint):
    """Saves the weights whenever the validation loss falls below all before.

    What is best so far is a step and a loss, kept with every checkpoint to go on from. The best checkpoint bears its
    step in its name: it is never overwritten, and a training that goes on from any of its checkpoints finds the best of
    then, wherever the folder has been moved to meanwhile.

    Args:
        folder: where the checkpoint lies.

    Attributes:
        step: the optimizer steps behind the best checkpoint; None when there is none.
        loss: its validation loss.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.step: int | None = None
        self.loss = math.inf

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save, if there is none yet or this is better; a loss that is no number is worse than any."""
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        loss = float(trainer.callback_metrics["val/loss"])
        loss = math.inf if math.isnan(loss) else loss
        if self.step is None or loss < self.loss:
            self.step, self.loss = trainer.global_step, loss
            path = checkpoint_path(trainer, self.folder, BEST, trainer.global_step)
            trainer.save_checkpoint(path, weights_only=True)

    def state_dict(self) -> dict[str, Any]:
        """Which checkpoint is the best; plain numbers."""
        return {"step": self.step, "loss": self.loss}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on comparing as before an interruption."""
        self.step, self.loss = state_dict["step"], state_dict["loss"]
