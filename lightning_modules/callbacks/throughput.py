"""Training speed, in tokens a second."""

import time
from typing import Any

import lightning as L  # noqa: N812
import torch

from lightning_modules.language_model import LanguageModel
from lightning_modules.logged_steps import is_logged

RATE = "throughput/tokens_per_second"


class Throughput(L.Callback):
    """Logs the tokens trained on per second since speed was last logged, over all ranks and of each; padding is none.

    Ranks wait for each other at every step: a slow one shows in all lines, and one with fewer tokens in its own.
    """

    def __init__(self) -> None:
        self._tokens = torch.zeros((), dtype=torch.int64)
        self._step = 0
        self._since = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self._tokens = torch.zeros((), dtype=torch.int64, device=pl_module.device)
        self._step, self._since = trainer.global_step, time.perf_counter()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the batch's tokens, and log the rate where an optimizer step is done and logged."""
        assert isinstance(pl_module, LanguageModel)
        # The tokens beyond the window are targets alone, and inputs of another one.
        n_positions = batch.tokens.shape[1] - 1 - pl_module.decoder.config.num_nextn_predict_layers
        self._tokens += (batch.document_ids[:, :n_positions] >= 0).sum()
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        if is_logged(trainer, self._step):
            # Ranks that share windows have each counted all of them.
            n_tokens, now = int(self._tokens) / pl_module.decoder.n_sharing, time.perf_counter()
            own = torch.tensor(n_tokens / (now - self._since), device=pl_module.device)
            rates = trainer.strategy.all_gather(own).flatten()
            pl_module.log(RATE, rates.sum())
            if trainer.world_size > 1:
                pl_module.log_dict({f"{RATE}/rank_{rank}": rate for rank, rate in enumerate(rates)})
            self._since = now
            self._tokens.zero_()

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Validation is not training time: stop the clock."""
        self._since -= time.perf_counter()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Let the clock run on."""
        self._since += time.perf_counter()
