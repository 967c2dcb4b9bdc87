"""The plan of a composed configuration."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning_modules.parallel.configuration import ParallelConfig
from pipeline.architecture.examination import codec_vocabulary
from pipeline.configuration.model import read_model
from pipeline.configuration.settings import read_settings
from pipeline.configuration.strategy import read_strategy
from pipeline.planning.planner import plan, plan_best
from pipeline.planning.settings import GpuConfig, PlannedTraining
from pipeline.plumbing.files import read_json
from pipeline.tokens.shards import INDEX_NAME


def planned(values: Mapping[str, Any], prepared: Path) -> dict[str, Any]:
    """The plan for a composed configuration, as plain nested mappings.

    Raises:
        ValueError: naming the key that cannot be, and the remedy.
    """
    strategy = read_strategy(values["strategy"])
    if strategy is None:
        raise ValueError("strategy.kind is 'single_device', which needs no plan; choose strategy=expert_parallel.")
    training = replace(read_training(values, prepared), accelerator="gpu")
    gpu = read_settings(GpuConfig, values["gpu"], "gpu")
    return (plan_best if values["plan"] == "best" else plan)(training, strategy, gpu)


def read_training(values: Mapping[str, Any], prepared: Path) -> PlannedTraining:
    """What the configuration would train; a vocabulary of null follows the codec, or the prepared data.

    Raises:
        ValueError: naming the key that cannot be.
    """
    model, trainer = values["model"], values["trainer"]
    index = prepared / "train" / INDEX_NAME
    follows = model["vocab_size"] is None
    vocabulary = codec_vocabulary(values["codec"], read_json(index) if index.exists() else None).size if follows else 1
    decoder, objective = read_model(model, vocabulary)
    strategy = read_strategy(values["strategy"]) or ParallelConfig()
    return PlannedTraining(
        decoder,
        objective,
        precision=values["precision"]["kind"],
        accelerator=trainer["accelerator"],
        optimizer=values["optimizer"].get("kind", "adamw"),
        moments=values["optimizer"]["moments"],
        batch_size=trainer["batch_size"],
        sequence_length=trainer["sequence_length"],
        accumulate_grad_batches=trainer["accumulate_grad_batches"],
        global_batch=trainer["global_batch"],
        attend_across_documents=trainer["attend_across_documents"],
        recompute=trainer["recompute"],
        averages_beside=trainer["ema_decay"] is not None and not trainer["ema_offload"],
        dispatch=strategy.dispatch,
        reduce_every_micro_batch=strategy.reduce_every_micro_batch,
        records_steps=trainer["cuda_graph"],
    )
