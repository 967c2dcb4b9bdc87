"""The Lightning Trainer this project trains with."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import lightning as L  # noqa: N812
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers import Logger

from lightning_modules.callbacks.expert_balance import ExpertBalance
from lightning_modules.callbacks.final_validation import FinalValidation
from lightning_modules.callbacks.parameter_average import ParameterAverage
from lightning_modules.callbacks.resume import ResumeCheckpoint
from lightning_modules.callbacks.throughput import Throughput

LIGHTNING_PRECISION = {"fp32": "32-true", "bf16": "bf16-mixed"}
BEST_CHECKPOINT = "best.ckpt"


@dataclass(frozen=True)
class TrainerConfig:
    """How long and in what portions training goes.

    `recompute_activations` drops norms, up-projections of attention and SwiGLU after the forward pass and computes them
    again for the backward pass: less memory, and the same results. `ema_decay` keeps a running mean of the parameters
    on the CPU (null: none). `start_from` is a training checkpoint whose weights are the first ones (null: random ones).
    """

    accelerator: str
    max_steps: int
    batch_size: int
    sequence_length: int
    accumulate_grad_batches: int
    gradient_clip_val: float | None
    val_every_steps: int
    log_every_steps: int
    checkpoint_every_steps: int
    attend_across_documents: bool
    recompute_activations: bool = False
    ema_decay: float | None = None
    start_from: str | None = None

    def __post_init__(self) -> None:
        for name in (
            "max_steps",
            "batch_size",
            "sequence_length",
            "accumulate_grad_batches",
            "val_every_steps",
            "log_every_steps",
            "checkpoint_every_steps",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"trainer.{name} is {getattr(self, name)}; it must be at least 1.")
        if self.gradient_clip_val is not None and self.gradient_clip_val <= 0:
            raise ValueError("trainer.gradient_clip_val must be positive, or null for no clipping.")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ValueError(
                f"trainer.ema_decay is {self.ema_decay}; it must lie between 0 and 1, or be null for none."
            )
        if self.accelerator == "gpu" and not torch.cuda.is_available():
            raise ValueError(
                "trainer.accelerator is 'gpu', but torch sees no GPU; use trainer=default to train on CPU."
            )

    @property
    def n_batches(self) -> int:
        """Micro-batches of the whole training, per rank."""
        return self.max_steps * self.accumulate_grad_batches


def build_trainer(config: TrainerConfig, precision: str, logger: Logger, folder: Path) -> L.Trainer:
    """A Trainer that runs `max_steps` optimizer steps as one pass, and keeps its checkpoints in `folder`.

    Args:
        config: the portions.
        precision: a key of LIGHTNING_PRECISION.
        logger: where metrics go.
        folder: `best.ckpt` (by validation loss, weights only) and `last.ckpt` (to go on from) are written here.
    """
    if precision not in LIGHTNING_PRECISION:
        raise ValueError(f"precision.kind is '{precision}'; choose one of {', '.join(LIGHTNING_PRECISION)}.")
    best = ModelCheckpoint(
        dirpath=folder,
        filename=Path(BEST_CHECKPOINT).stem,
        monitor="val/loss",
        save_weights_only=True,
        enable_version_counter=False,
    )
    average = [] if config.ema_decay is None else [ParameterAverage(config.ema_decay)]
    callbacks: Sequence[L.Callback] = (
        ExpertBalance(),
        *average,
        Throughput(),
        FinalValidation(),
        TQDMProgressBar(refresh_rate=5),
        best,
        ResumeCheckpoint(folder, config.checkpoint_every_steps, config.val_every_steps),
    )
    return L.Trainer(
        accelerator=config.accelerator,
        devices=1,
        precision=LIGHTNING_PRECISION[precision],  # type: ignore[arg-type]
        max_steps=config.max_steps,
        max_epochs=-1,
        accumulate_grad_batches=config.accumulate_grad_batches,
        gradient_clip_val=config.gradient_clip_val,
        val_check_interval=min(config.val_every_steps, config.max_steps) * config.accumulate_grad_batches,
        check_val_every_n_epoch=None,
        log_every_n_steps=config.log_every_steps,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        enable_model_summary=False,
        logger=logger,
        callbacks=list(callbacks),
    )
