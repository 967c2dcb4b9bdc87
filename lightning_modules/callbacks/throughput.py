"""Training speed, in tokens a second."""

import time
from typing import Any

import lightning as L  # noqa: N812

from lightning_modules.language_model import LanguageModel


class Throughput(L.Callback):
    """Logs the tokens trained on per second since the last optimizer step, over all ranks."""

    def __init__(self) -> None:
        self._tokens = 0
        self._step = 0
        self._since = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self._tokens, self._step, self._since = 0, trainer.global_step, time.perf_counter()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the batch's tokens, and log the rate once an optimizer step is done."""
        assert isinstance(pl_module, LanguageModel)
        # The tokens beyond the window are targets alone, and inputs of the next one.
        lookahead = 1 + pl_module.decoder.config.num_nextn_predict_layers
        self._tokens += batch.tokens[:, lookahead:].numel() * trainer.world_size
        if trainer.global_step == self._step:
            return
        now = time.perf_counter()
        pl_module.log("throughput/tokens_per_second", self._tokens / (now - self._since))
        self._tokens, self._step, self._since = 0, trainer.global_step, now

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Validation is not training time: start the clock anew."""
        self._since = time.perf_counter()
