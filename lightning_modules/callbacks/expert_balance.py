"""Keeps experts balanced without an auxiliary loss, and tells how well it goes."""

from typing import Any

import lightning as L  # noqa: N812
import torch
from torch import Tensor

from lightning_modules.balance import balance_metrics, load_drift
from lightning_modules.language_model import LanguageModel
from lightning_modules.logged_steps import is_logged
from lightning_modules.model.router import update_biases


class ExpertBalance(L.Callback):
    """Moves every routing bias once an optimizer step, from the load of all its micro-batches and ranks."""

    def __init__(self) -> None:
        self._load: Tensor | None = None
        self._step = 0
        self._running_loads: Tensor | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Count steps from where training starts or goes on."""
        self._load, self._step = None, trainer.global_step

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add up the micro-batch's load; after an optimizer step, update the biases and log the balance."""
        assert isinstance(pl_module, LanguageModel)
        # Whole numbers, exact in FP64: the sum is the same however tokens are portioned to micro-batches and ranks.
        load = outputs["expert_load"].double()
        self._load = load if self._load is None else self._load + load
        if trainer.global_step == self._step:
            return
        if pl_module.step_skipped:
            self._load, self._step = None, trainer.global_step
            return
        total = torch.as_tensor(trainer.strategy.reduce(self._load, reduce_op="sum")).float()
        self._load, self._step = None, trainer.global_step
        decoder = pl_module.decoder
        routers = dict(zip(decoder.expert_layers(), decoder.routers(), strict=True))
        update_biases(list(routers.values()), total, pl_module.objective.bias_update_speed)
        if is_logged(trainer, self._step):
            pl_module.log_dict(balance_metrics(dict(zip(routers, total.cpu(), strict=True))))
            biases = torch.stack([router.e_score_correction_bias for router in routers.values()]).cpu()
            ranges = biases.max(dim=1).values - biases.min(dim=1).values
            pl_module.log_dict({f"moe/bias_range/layer_{n}": r for n, r in zip(routers, ranges, strict=True)})

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log how much of the load went elsewhere since the last validation, by the routers' running means."""
        assert isinstance(pl_module, LanguageModel)
        decoder = pl_module.decoder
        if trainer.sanity_checking or not decoder.expert_layers():
            return
        loads = torch.stack([router.expert_loads for router in decoder.routers()]).cpu()
        if self._running_loads is not None:
            drifts = load_drift(self._running_loads, loads)
            pl_module.log_dict(
                {f"moe/load_drift/layer_{n}": d for n, d in zip(decoder.expert_layers(), drifts, strict=True)}
            )
        self._running_loads = loads

    def state_dict(self) -> dict[str, Any]:
        """What the next validation is held against, so that a training that goes on finds the same drift."""
        return {} if self._running_loads is None else {"running_loads": self._running_loads.tolist()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what `state_dict` gave; checkpoints of before have nothing."""
        if "running_loads" in state_dict:
            self._running_loads = torch.tensor(state_dict["running_loads"])
