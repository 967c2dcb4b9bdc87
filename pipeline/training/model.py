"""The model that is trained: as configured, or with the weights of an earlier training."""

from collections.abc import Mapping
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from lightning_modules.configuration import OptimizerConfig, TrainerConfig
from lightning_modules.language_model import LanguageModel
from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.parallel.checkpoint_loading import load_weights, read_description
from lightning_modules.parallel.configuration import ParallelConfig
from lightning_modules.schedule import ScheduleConfig
from lightning_modules.trainer import compiles, model_device
from pipeline.configuration.model import read_model
from pipeline.configuration.settings import read_settings


def build_model(
    values: Mapping[str, Any], vocabulary_size: int, trainer: TrainerConfig, strategy: ParallelConfig | None
) -> LanguageModel:
    """The LightningModule that the configuration describes, for tokens of this vocabulary.

    Raises:
        ValueError: when the configured vocabulary is too small for the tokens.
    """
    decoder, objective = read_model(values["model"], vocabulary_size)
    with torch.device(model_device(strategy)):
        return LanguageModel(
            decoder,
            objective,
            read_settings(OptimizerConfig, values["optimizer"], "optimizer"),
            read_settings(ScheduleConfig, values["schedule"], "schedule"),
            trainer.max_steps,
            values["seed"],
            trainer.attend_across_documents,
            trainer.recompute,
            compiles(trainer, decoder, values["precision"]["kind"]),
            trainer.cuda_graph,
        )


def begin_with(model: LanguageModel, path: Path) -> None:
    """Begin with the weights of an earlier training, as the phases of context extension do.

    A model without memory of its own yet loads them when it is sharded.

    Raises:
        FileNotFoundError: when there is no such checkpoint.
        ValueError: when it holds another architecture; only how positions are scaled may differ.
    """
    trained = DecoderConfig(**read_description(path)["hyper_parameters"]["decoder"])
    config = model.decoder.config
    extended = replace(
        trained, rope_scaling=config.rope_scaling, max_position_embeddings=config.max_position_embeddings
    )
    if extended != config:
        differing = [f.name for f in fields(config) if getattr(extended, f.name) != getattr(config, f.name)]
        raise ValueError(
            f"trainer.start_from: {path} holds a model with another {', '.join(differing)}; "
            "set model.* as it was trained."
        )
    if any(parameter.is_meta for parameter in model.parameters()):
        model.load_first_weights = partial(load_weights, path)
    else:
        load_weights(path, model.decoder)
