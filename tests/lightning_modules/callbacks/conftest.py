from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L  # noqa: N812
import pytest
import torch
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader


class ScriptedModule(L.LightningModule):
    """One weight that grows by one every optimizer step, and a validation loss that is known beforehand."""

    def __init__(self, val_losses: Mapping[int, float]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.val_losses = val_losses

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return -self.weight

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.log("val/loss", torch.tensor(self.val_losses.get(self.trainer.global_step, 1.0)))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1.0)


class Events(L.Callback):
    """What happened at which optimizer step, in order."""

    def __init__(self) -> None:
        self.events: list[tuple[str, int]] = []

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.events.append(("validated", trainer.global_step))

    def on_save_checkpoint(self, trainer: L.Trainer, *args: Any) -> None:
        self.events.append(("saved", trainer.global_step))


class Interruption(Checkpoint):
    """The machine goes away when a step is about to begin; Lightning calls it last, as it is a checkpoint callback."""

    def __init__(self, at_step: int) -> None:
        self.at_step = at_step

    def on_train_batch_start(self, trainer: L.Trainer, *args: Any) -> None:
        if trainer.global_step == self.at_step:
            raise ConnectionAbortedError("the machine went away")


@pytest.fixture
def fit_scripted() -> Callable[..., list[tuple[str, int]]]:
    """Train a ScriptedModule under some callbacks, and tell what happened."""

    def fit(
        callbacks: Sequence[L.Callback],
        max_steps: int,
        val_every_steps: int,
        accumulate: int = 1,
        val_losses: Mapping[int, float] | None = None,
        interrupt_at: int | None = None,
        resume: Path | None = None,
    ) -> list[tuple[str, int]]:
        watcher = Events()
        trainer = L.Trainer(
            accelerator="cpu",
            max_steps=max_steps,
            max_epochs=-1,
            accumulate_grad_batches=accumulate,
            val_check_interval=min(val_every_steps, max_steps) * accumulate,
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            logger=False,
            enable_checkpointing=interrupt_at is not None or any(isinstance(c, Checkpoint) for c in callbacks),
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[watcher, *callbacks, *([Interruption(interrupt_at)] if interrupt_at is not None else [])],
        )
        batches = DataLoader(torch.zeros(max_steps * accumulate, 1))
        trainer.fit(
            ScriptedModule(val_losses or {}),
            batches,
            DataLoader(torch.zeros(1, 1)),
            ckpt_path=resume,
            weights_only=True,
        )
        return watcher.events

    return fit
