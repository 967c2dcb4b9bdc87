"""The bar a training shows."""

from typing import Any

import lightning as L  # noqa: N812
from lightning.pytorch.callbacks import TQDMProgressBar


class LossProgressBar(TQDMProgressBar):
    """Lightning's, with the training loss beside it whenever the bar is drawn.

    A metric logged for Lightning's own bar is read from the GPU at every step, drawn or not.
    """

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        """What stands beside the bar."""
        metrics = super().get_metrics(trainer, pl_module)
        if (loss := trainer.callback_metrics.get("train/loss")) is not None:
            metrics["loss"] = float(loss)
        return metrics
