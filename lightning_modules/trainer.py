"""The Lightning Trainer this project trains with."""

from collections.abc import Sequence
from pathlib import Path

import lightning as L  # noqa: N812
import torch
from lightning.pytorch.loggers import Logger

from lightning_modules.callbacks.anomaly import AnomalyGuard
from lightning_modules.callbacks.best import BestCheckpoint
from lightning_modules.callbacks.expert_balance import ExpertBalance
from lightning_modules.callbacks.final_validation import FinalValidation
from lightning_modules.callbacks.parameter_average import ParameterAverage
from lightning_modules.callbacks.preemption import Preemption
from lightning_modules.callbacks.progress_bar import LossProgressBar
from lightning_modules.callbacks.random_state import RandomState
from lightning_modules.callbacks.resume import ResumeCheckpoint
from lightning_modules.callbacks.throughput import Throughput
from lightning_modules.configuration import TrainerConfig
from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.model.counting import build_on_meta, training_flops_per_token
from lightning_modules.parallel.checkpoint_io import CheckpointFiles
from lightning_modules.parallel.configuration import ParallelConfig, mesh_sizes
from lightning_modules.parallel.launch import Processes, cluster_environment, find_processes, refuse_other_processes
from lightning_modules.parallel.one_device import OneDeviceStrategy
from lightning_modules.parallel.strategy import ExpertParallelStrategy
from lightning_modules.precision.plugins import build_precision
from lightning_modules.precision.recipes import RECIPES, n_emulated, pays, quantised_weights

# Compiling takes about half a minute, and a compiled step two thirds of the time: a GPU wins that back in a minute or
# two, in which it computes so many floating-point operations.
REPAYS_COMPILING = 1e16


def n_ranks(strategy: ParallelConfig | None, accelerator: str) -> int:
    """Processes of the training; `strategy` None stands for a single device.

    Raises:
        ValueError: there is no GPU to train on; or as `find_processes` and `refuse_other_processes` do.
    """
    return _processes(strategy, accelerator).world_size


def n_readers(strategy: ParallelConfig | None, accelerator: str) -> int:
    """Processes that read batches of their own, where those that share windows count as one.

    Raises:
        ValueError: the mesh does not fit the processes; or as `n_ranks` does.
    """
    config = strategy or ParallelConfig()
    sizes = mesh_sizes(config, n_ranks(strategy, accelerator))
    return sizes.dp_replicate * sizes.dp_shard * sizes.ep


def model_device(strategy: ParallelConfig | None) -> torch.device:
    """Where to build the LanguageModel: without memory, where a strategy shards it first."""
    return torch.device("cpu" if strategy is None else "meta")


def build_trainer(
    config: TrainerConfig,
    strategy: ParallelConfig | None,
    precision: str,
    logger: Logger,
    folder: Path,
    callbacks: Sequence[L.Callback] = (),
) -> L.Trainer:
    """A Trainer that runs `max_steps` optimizer steps as one pass, and keeps its checkpoints in `folder`.

    Args:
        config: the portions.
        strategy: the mesh of ranks; None: one device.
        precision: `precision.kind`, as `build_precision` knows it.
        logger: where metrics go.
        folder: `best-*` (by validation loss, weights only) and `step-*` (to go on from) are written here.
        callbacks: more of them, called before those that save.

    Raises:
        ValueError: the mesh fits neither processes nor windows, or the precision is unknown or not compiled here.
    """
    if config.compile:
        _check_compilable(precision, config.accelerator)
    processes = _processes(strategy, config.accelerator)
    if strategy is not None:
        # Once more when they are connected; but here the error needs nobody to wait for.
        mesh_sizes(strategy, processes.world_size)
        strategy.check_length(config.sequence_length)
    return L.Trainer(
        accelerator=config.accelerator,
        devices=processes.per_node,
        num_nodes=processes.nodes,
        strategy=_one_device(config.accelerator) if strategy is None else ExpertParallelStrategy(strategy),
        plugins=[build_precision(precision, sharded=strategy is not None), CheckpointFiles(), cluster_environment()],
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
        callbacks=[*callbacks, *_callbacks(config, folder)],
    )


def compiles(config: TrainerConfig, decoder: DecoderConfig, precision: str) -> bool:
    """Whether a training compiles its blocks: as `trainer.compile` says, or else where it can and it pays.

    It does on a GPU, in trainings of REPAYS_COMPILING operations or more a device. Emulated FP8 cannot be compiled.
    """
    if config.compile is not None:
        return config.compile
    if config.accelerator != "gpu":
        return False
    model = build_on_meta(decoder)
    if precision in RECIPES and n_emulated(quantised_weights(model, pays), precision, _device(config.accelerator)):
        return False
    n_tokens = config.max_steps * config.accumulate_grad_batches * config.batch_size * config.sequence_length
    return n_tokens * training_flops_per_token(model, config.sequence_length) >= REPAYS_COMPILING


def _callbacks(config: TrainerConfig, folder: Path) -> list[L.Callback]:
    resume = ResumeCheckpoint(folder, config.checkpoint_every_steps, config.keep_last)
    average = [] if config.ema_decay is None else [ParameterAverage(config.ema_decay, config.ema_offload)]
    return [
        ExpertBalance(),
        *average,
        AnomalyGuard(config.anomalies),
        Throughput(),
        FinalValidation(),
        RandomState(),
        LossProgressBar(refresh_rate=5),
        BestCheckpoint(folder),
        resume,
        Preemption(resume),
    ]


def _check_compilable(precision: str, accelerator: str) -> None:
    """Refuse to compile FP8 where it is emulated: torch's compiler fails on that, minutes later and hard to read."""
    if _is_emulated(precision, accelerator):
        raise ValueError(
            f"trainer.compile is true, but precision={precision} is emulated on this device "
            f"({_device(accelerator).type}), which cannot be compiled; set trainer.compile=false, or choose "
            "precision=bf16."
        )


def _is_emulated(precision: str, accelerator: str) -> bool:
    return precision in RECIPES and not RECIPES[precision].runs_on(torch.Size((128, 128)), _device(accelerator))


def _device(accelerator: str) -> torch.device:
    if accelerator == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())


def _one_device(accelerator: str) -> OneDeviceStrategy:
    return OneDeviceStrategy(torch.device("cpu" if accelerator == "cpu" or not torch.cuda.is_available() else "cuda:0"))


def _processes(strategy: ParallelConfig | None, accelerator: str) -> Processes:
    if accelerator == "gpu" and not torch.cuda.is_available():
        raise ValueError("trainer.accelerator is 'gpu', but torch sees no GPU; use trainer=default to train on CPU.")
    if strategy is not None:
        return find_processes(strategy, accelerator)
    refuse_other_processes()
    return Processes(1, 1)
