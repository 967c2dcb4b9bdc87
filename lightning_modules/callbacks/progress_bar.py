"""The bar a training shows."""

from typing import Any

import lightning as L  # noqa: N812
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import convert_inf


class LossProgressBar(TQDMProgressBar):
    """Lightning's, with the training loss beside it whenever the bar is drawn.

    A metric logged for Lightning's own bar is read from the GPU at every step, drawn or not.
    """

    @property
    def total_train_batches(self) -> int | float:
        """The micro-batches of the whole training, in which the bar counts; Lightning takes the steps that are left."""
        return self.trainer.num_training_batches

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin where a training goes on: Lightning learns the length of an epoch at its beginning alone."""
        super().on_train_start(trainer, pl_module)
        self.train_progress_bar.initial = self.train_progress_bar.n = trainer.fit_loop.total_batch_idx + 1
        self.train_progress_bar.total = convert_inf(self.total_train_batches)

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        """What stands beside the bar."""
        metrics = super().get_metrics(trainer, pl_module)
        if (loss := trainer.callback_metrics.get("train/loss")) is not None:
            metrics["loss"] = float(loss)
        return metrics
