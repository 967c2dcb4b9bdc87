"""What Lightning's single files and sharded folders have in common: the decoder's own names, its stacks, its values."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.precision.emulation import E4M3
from pipeline.checkpoints.architecture import read_architecture
from pipeline.checkpoints.architecture_match import OpenOptions, complete
from pipeline.checkpoints.choices import AVERAGED
from pipeline.checkpoints.names import ALWAYS_FP32, own_parts, own_tensors, published_parts
from pipeline.checkpoints.plausibility import check_layers
from pipeline.checkpoints.slices import split_own
from pipeline.checkpoints.stored_tensor import (
    CheckpointSource,
    DamagedCheckpointError,
    StoredTensor,
    separate_sentence,
)
from pipeline.checkpoints.writing.tensors import PlannedTensor

WEIGHTS = "state_dict"
# Where `lightning_modules.callbacks.parameter_average` keeps its means.
AVERAGE = "parameter_average"
# The decoder's place in the LightningModule.
PREFIX = "decoder."
# What a conversion carries over, or writes anew.
_CARRIED = {WEIGHTS, "hyper_parameters", "global_step", "epoch", "pytorch-lightning_version", "identity"}


def names(config: DecoderConfig) -> dict[str, str]:
    """What training checkpoints call the tensor that a published one lies in, by published names."""
    return {name: PREFIX + part.own for name, part in published_parts(config).items()}


def training_source(
    tensors: Mapping[str, StoredTensor],
    average: Mapping[str, StoredTensor],
    values: Mapping[str, Any],
    layout: str,
    path: Path,
    options: OpenOptions,
) -> CheckpointSource:
    """A training checkpoint, taken apart into published tensors.

    Args:
        tensors: those of `state_dict`, by their names there.
        average: the running mean of the decoder's parameters, by their names there; empty where training kept none.
        values: everything else that the checkpoint holds, by its keys.
        layout: the registry's name.
        path: of the checkpoint.
        options: what may be missing, and which weights are read.

    Raises:
        DamagedCheckpointError: when it lacks its architecture, or holds another.
    """
    try:
        described = values["hyper_parameters"]["decoder"]
        step = int(values["global_step"])
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedCheckpointError(
            f"{path} does not say which decoder it is of (hyper_parameters.decoder, global_step: {error!r}); "
            "take another checkpoint of the training."
        ) from error
    config = read_architecture(described, path)
    check_layers(config, len(tensors), path)
    averaged = options.weights == AVERAGED and bool(average)
    if averaged:
        tensors = {**tensors, **_averaged(tensors, average, config, path)}
    found = split_own({name.removeprefix(PREFIX): stored for name, stored in tensors.items()}, config, path)
    left_behind = tuple(sorted(set(values) - _CARRIED))
    source = complete(found, config, layout, path, options, step=step, left_behind=left_behind, averaged=averaged)
    return replace(source, identity=values.get("identity"))


def _averaged(
    tensors: Mapping[str, StoredTensor], average: Mapping[str, StoredTensor], config: DecoderConfig, path: Path
) -> dict[str, StoredTensor]:
    """The running mean of every parameter, by its name in `state_dict`; routers' biases, which are none, have none."""
    found = {PREFIX + name: stored for name, stored in average.items()}
    if config.tie_word_embeddings and PREFIX + "embed_tokens.weight" in found:
        found[PREFIX + "lm_head.weight"] = found[PREFIX + "embed_tokens.weight"]
    absent = [name for name in tensors if name not in found and not name.endswith(ALWAYS_FP32)]
    if absent:
        raise DamagedCheckpointError(
            f"{path} holds a running mean of its weights, but not of {absent[0]}; take another checkpoint of the "
            "training."
        )
    return {name: found[name] for name in tensors if name in found}


def training_values(source: CheckpointSource) -> dict[str, Any]:
    """What `trainer.start_from` reads beside the weights."""
    return {
        "hyper_parameters": {"decoder": asdict(source.config)},
        "global_step": source.step or 0,
        "epoch": 0,
        "pytorch-lightning_version": version("lightning"),
    }


def planned_stacks(source: CheckpointSource) -> list[PlannedTensor]:
    """The tensors of `state_dict`, put together from published ones.

    Raises:
        ValueError: when there is FP8 among them, or an embedding of a prediction module's own, which a training
            checkpoint has no place for.
    """
    if source.separate:
        raise ValueError(separate_sentence(source))
    if any(stored.dtype == E4M3 for stored in source.tensors.values()):
        raise ValueError(
            f"{source.path} holds FP8 weights, which a training checkpoint has no place for; "
            "set dtype to bfloat16 or float32."
        )
    shapes = own_tensors(source.config)
    tensors = []
    for own, parts in own_parts(source.config).items():
        pieces = [source.tensors[name] for name in parts if name in source.tensors]
        if pieces:
            tensors.append(PlannedTensor(PREFIX + own, tuple(shapes[own].shape), pieces[0].dtype, tuple(pieces)))
    return tensors
