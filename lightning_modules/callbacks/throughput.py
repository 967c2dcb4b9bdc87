"""Training speed, in tokens a second, and the rank that holds it up."""

import logging
import time
from typing import Any

import lightning as L  # noqa: N812
import torch
from torch import Tensor

from lightning_modules.language_model import LanguageModel
from lightning_modules.logged_steps import is_logged
from lightning_modules.parallel.straggler import Stragglers, slowest
from lightning_modules.parallel.waiting import WaitingTime

log = logging.getLogger(__name__)

RATE = "throughput/tokens_per_second"
WORK = "throughput/work_seconds_per_step"
SLOWEST = "throughput/slowest_rank_to_median"


class Throughput(L.Callback):
    """Logs the tokens trained on per second since speed was last logged, over all ranks and of each; padding is none.

    Ranks wait for each other at every step: a slow one shows in all lines, and one with fewer tokens in its own. So
    each one's work is logged too, which is its time without what it waited for others. A rank that works much longer
    than most, twice in a row, is named.
    """

    def __init__(self) -> None:
        self._tokens = torch.zeros((), dtype=torch.int64)
        self._step = self._logged_step = 0
        self._since = self._waited = 0.0
        self._waiting = WaitingTime()
        self._stragglers = Stragglers()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self._tokens = torch.zeros((), dtype=torch.int64, device=pl_module.device)
        self._step = self._logged_step = trainer.global_step
        self._waiting, self._waited, self._stragglers = WaitingTime(), 0.0, Stragglers()
        if trainer.world_size > 1:
            self._waiting.start()
        self._since = time.perf_counter()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the batch's tokens, and log speed where an optimizer step is done and logged."""
        assert isinstance(pl_module, LanguageModel)
        # The tokens beyond the window are targets alone, and inputs of another one.
        n_positions = batch.tokens.shape[1] - 1 - pl_module.decoder.config.num_nextn_predict_layers
        self._tokens += (batch.document_ids[:, :n_positions] >= 0).sum()
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        if is_logged(trainer, self._step):
            self._log(trainer, pl_module)

    def _log(self, trainer: L.Trainer, pl_module: LanguageModel) -> None:
        reached = time.perf_counter()
        # Ranks that share windows have each counted all of them. A GPU has to come so far first, and may have waited.
        n_tokens, now = int(self._tokens) / pl_module.decoder.n_sharing, time.perf_counter()
        seconds, n_steps, waited = now - self._since, self._step - self._logged_step, self._waiting.seconds
        work = reached - self._since - (waited - self._waited)
        self._since, self._waited, self._logged_step = now, waited, self._step
        self._tokens.zero_()
        own = torch.tensor([n_tokens / seconds, work / n_steps], device=pl_module.device)
        rates, work_of_ranks = trainer.strategy.all_gather(own).view(-1, 2).unbind(dim=1)
        pl_module.log(RATE, rates.sum())
        if trainer.world_size > 1:
            pl_module.log_dict({f"{RATE}/rank_{rank}": rate for rank, rate in enumerate(rates)})
            self._log_work(trainer, pl_module, work_of_ranks, seconds / n_steps)

    def _log_work(self, trainer: L.Trainer, pl_module: LanguageModel, of_ranks: Tensor, step: float) -> None:
        pl_module.log_dict({f"{WORK}/rank_{rank}": seconds for rank, seconds in enumerate(of_ranks)})
        work = of_ranks.tolist()
        pl_module.log(SLOWEST, torch.tensor(slowest(work, step).ratio))
        found = self._stragglers.observe(work, step)
        if found is not None and trainer.is_global_zero:
            log.warning(
                "Rank %d (%s) works %.1f x as long as the median rank, %.3g s of a step of %.3g s: the others wait.",
                found.rank,
                trainer.strategy.host_of(found.rank),  # type: ignore[attr-defined]
                found.ratio,
                found.work,
                found.step,
            )

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Validation is not training time: stop the clocks."""
        self._since -= time.perf_counter()
        self._waited -= self._waiting.seconds

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Let the clocks run on."""
        self._since += time.perf_counter()
        self._waited += self._waiting.seconds

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop looking."""
        self._waiting.stop()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Stop looking."""
        self._waiting.stop()
