"""The Lightning Trainer this project trains with."""

from dataclasses import dataclass
from pathlib import Path

import lightning as L  # noqa: N812
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers import Logger

from lightning_modules.callbacks.anomaly import AnomalyConfig, AnomalyGuard
from lightning_modules.callbacks.expert_balance import ExpertBalance
from lightning_modules.callbacks.final_validation import FinalValidation
from lightning_modules.callbacks.parameter_average import ParameterAverage
from lightning_modules.callbacks.preemption import Preemption
from lightning_modules.callbacks.random_state import RandomState
from lightning_modules.callbacks.resume import ResumeCheckpoint
from lightning_modules.callbacks.throughput import Throughput
from lightning_modules.parallel.checkpoint_io import CheckpointFiles
from lightning_modules.parallel.launch import Processes, find_processes, refuse_other_processes
from lightning_modules.parallel.mesh import ParallelConfig, mesh_sizes
from lightning_modules.parallel.strategy import ExpertParallelStrategy
from lightning_modules.precision.plugins import build_precision
from lightning_modules.precision.recipes import RECIPES

BEST_CHECKPOINT = "best.ckpt"


@dataclass(frozen=True)
class TrainerConfig:
    """How long and in what portions training goes.

    `recompute_activations` drops norms, up-projections of attention and SwiGLU after the forward pass and computes them
    again for the backward pass: less memory, and the same results. `compile` compiles every block. Of the checkpoints
    to go on from, the last `keep_last` stay. `ema_decay` keeps a running mean of the parameters on the CPU (null:
    none). `start_from` is a training checkpoint whose weights are the first ones (null: random ones). `anomalies` says
    what is done about a step whose loss or gradient is not to be trusted.
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
    compile: bool = False
    keep_last: int = 2
    ema_decay: float | None = None
    start_from: str | None = None
    anomalies: AnomalyConfig = AnomalyConfig()

    def __post_init__(self) -> None:
        for name in (
            "max_steps",
            "batch_size",
            "sequence_length",
            "accumulate_grad_batches",
            "val_every_steps",
            "log_every_steps",
            "checkpoint_every_steps",
            "keep_last",
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


def n_ranks(strategy: ParallelConfig | None, accelerator: str) -> int:
    """Processes of the training; `strategy` None stands for a single device.

    Raises:
        ValueError: as `find_processes` and `refuse_other_processes` do.
    """
    return _processes(strategy, accelerator).world_size


def model_device(strategy: ParallelConfig | None) -> torch.device:
    """Where to build the LanguageModel: without memory, where a strategy shards it first."""
    return torch.device("cpu" if strategy is None else "meta")


def build_trainer(
    config: TrainerConfig, strategy: ParallelConfig | None, precision: str, logger: Logger, folder: Path
) -> L.Trainer:
    """A Trainer that runs `max_steps` optimizer steps as one pass, and keeps its checkpoints in `folder`.

    Args:
        config: the portions.
        strategy: the mesh of ranks; None: one device.
        precision: `precision.kind`, as `build_precision` knows it.
        logger: where metrics go.
        folder: `best.ckpt` (by validation loss, weights only) and `step-*` (to go on from) are written here.

    Raises:
        ValueError: the mesh does not fit the processes, the precision is unknown, or it cannot be compiled here.
    """
    if config.compile:
        _check_compilable(precision, config.accelerator)
    processes = _processes(strategy, config.accelerator)
    if strategy is not None:
        # Once more when they are connected; but here the error needs nobody to wait for.
        mesh_sizes(strategy, processes.world_size)
    return L.Trainer(
        accelerator=config.accelerator,
        devices=processes.per_node,
        num_nodes=processes.nodes,
        strategy="auto" if strategy is None else ExpertParallelStrategy(strategy),
        plugins=[build_precision(precision, sharded=strategy is not None), CheckpointFiles()],
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
        callbacks=_callbacks(config, folder),
    )


def _callbacks(config: TrainerConfig, folder: Path) -> list[L.Callback]:
    best = ModelCheckpoint(
        dirpath=folder,
        filename=Path(BEST_CHECKPOINT).stem,
        monitor="val/loss",
        save_weights_only=True,
        enable_version_counter=False,
    )
    resume = ResumeCheckpoint(folder, config.checkpoint_every_steps, config.val_every_steps, keep_last=config.keep_last)
    average = [] if config.ema_decay is None else [ParameterAverage(config.ema_decay)]
    return [
        ExpertBalance(),
        *average,
        AnomalyGuard(config.anomalies),
        Throughput(),
        FinalValidation(),
        RandomState(),
        TQDMProgressBar(refresh_rate=5),
        best,
        resume,
        Preemption(resume),
    ]


def _check_compilable(precision: str, accelerator: str) -> None:
    """Refuse to compile FP8 where it is emulated: torch's compiler fails on that, minutes later and hard to read."""
    on_gpu = accelerator != "cpu" and torch.cuda.is_available()
    device = torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")
    if precision in RECIPES and not RECIPES[precision].runs_on(torch.Size((128, 128)), device):
        raise ValueError(
            f"trainer.compile is true, but precision={precision} is emulated on this device ({device.type}), which "
            "cannot be compiled; set trainer.compile=false, or choose precision=bf16."
        )


def _processes(strategy: ParallelConfig | None, accelerator: str) -> Processes:
    if strategy is not None:
        return find_processes(strategy, accelerator)
    refuse_other_processes()
    return Processes(1, 1)
