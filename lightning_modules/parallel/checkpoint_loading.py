"""Opens checkpoints of any layout in any other: a sharded folder, or the single file of one device."""

import pickle
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L  # noqa: N812
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict import set_optimizer_state_dict
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from lightning_modules.parallel.checkpoint import (
    AVERAGE,
    MODEL,
    OPTIMIZERS,
    model_state,
    optimizer_key,
    optimizer_state,
)
from lightning_modules.parallel.checkpoint_folder import INDEX_DIGEST, META_FILE, is_sharded
from lightning_modules.parallel.checkpoint_metadata import SafeReader
from lightning_modules.parallel.sent_errors import let_errors_be_sent

# Where a LightningModule keeps the model.
DECODER = "decoder"


def load_checkpoint(
    path: Path, module: L.LightningModule, optimizers: Sequence[torch.optim.Optimizer]
) -> dict[str, Any]:
    """Load parameters, buffers and optimizers in place, whatever layout they were saved in; collective.

    Args:
        path: a sharded folder, or a single file.
        module: holds the sharded `decoder`.
        optimizers: of the module, in the order in which they were saved.

    Returns:
        Everything else the checkpoint holds; `parameter_average` sharded like the parameters, on the CPU.

    Raises:
        ValueError: when `path` is no checkpoint, or holds another model.
    """
    if is_sharded(path):
        return _load_folder(path, module, optimizers)
    return _load_file(path, module, optimizers)


def load_weights(path: Path, decoder: nn.Module) -> None:
    """Load a decoder's parameters and buffers alone, from a sharded folder or a single file; collective.

    Raises:
        ValueError: when `path` is no checkpoint, or holds another model.
    """
    targets = {f"{DECODER}.{name}": tensor for name, tensor in model_state(decoder).items()}
    if is_sharded(path):
        _read({MODEL: targets}, SafeReader(path))
    else:
        _fill(targets, _open_file(path)[MODEL], path)


def read_description(path: Path) -> dict[str, Any]:
    """What a checkpoint says of itself, such as `hyper_parameters` and `global_step`; no tensors of a folder are read.

    Raises:
        FileNotFoundError: when there is nothing.
        ValueError: when `path` is no checkpoint, or is damaged.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; run `python -m pipeline.train` first.")
    try:
        return _open_meta(path) if is_sharded(path) else _open_file(path)
    except (RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise ValueError(f"{path} is not a training checkpoint, or it is damaged ({error}).") from error


def gather_checkpoint(path: Path) -> dict[str, Any]:
    """A sharded checkpoint as the dictionary of whole tensors that Lightning keeps in a single file; needs no ranks.

    Raises:
        ValueError: when `path` is no sharded checkpoint.
    """
    if not is_sharded(path):
        raise ValueError(f"{path} is not a sharded checkpoint: it lacks .metadata or {META_FILE}.")
    reader = SafeReader(path)
    flat: dict[str, Any] = {
        name: torch.empty(stored.size, dtype=stored.properties.dtype)
        if isinstance(stored, TensorStorageMetadata)
        else None
        for name, stored in reader.read_metadata().state_dict_metadata.items()
    }
    _load(flat, reader, alone=True)
    checkpoint = _open_meta(path)
    checkpoint[MODEL] = _below(flat, MODEL)
    if average := _below(flat, AVERAGE):
        checkpoint[AVERAGE] = average
    states: list[dict[str, Any]] = []
    while state := _below(flat, optimizer_key(len(states))):
        states.append(_numbered_optimizer(state))
    return checkpoint | {OPTIMIZERS: states} if states else checkpoint


def _load_folder(path: Path, module: L.LightningModule, optimizers: Sequence[torch.optim.Optimizer]) -> dict[str, Any]:
    # Once: the index of many ranks' shards takes seconds to read.
    reader = SafeReader(path)
    state: dict[str, Any] = {MODEL: model_state(module)}
    _read(state, reader)
    # Not together with the parameters: asking a fresh optimizer for its state takes a step, if one of size 0.
    for index, optimizer in enumerate(optimizers):
        state = {optimizer_key(index): optimizer_state(module, optimizer)}
        _read(state, reader)
        set_optimizer_state_dict(module, optimizer, state[optimizer_key(index)])
    checkpoint = _open_meta(path)
    names = reader.read_metadata().state_dict_metadata
    if any(name.startswith(f"{AVERAGE}.") for name in names):
        average = {AVERAGE: _like_parameters(module)}
        _read(average, reader)
        checkpoint |= average
    return checkpoint


def _load_file(path: Path, module: L.LightningModule, optimizers: Sequence[torch.optim.Optimizer]) -> dict[str, Any]:
    checkpoint = _open_file(path)
    _fill(model_state(module), checkpoint.pop(MODEL), path)
    for optimizer, saved in zip(optimizers, checkpoint.pop(OPTIMIZERS, []), strict=False):
        _fill_optimizer(optimizer, saved)
    if AVERAGE in checkpoint:
        average = _like_parameters(module)
        _fill(average, checkpoint[AVERAGE], path)
        checkpoint[AVERAGE] = average
    return checkpoint


def _open_meta(path: Path) -> dict[str, Any]:
    """What a sharded checkpoint holds beside its shards; it is of no use to anybody that it tells of its own index."""
    content = _open(path / META_FILE)
    content.pop(INDEX_DIGEST, None)
    return content


def _open_file(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"{path} is no checkpoint: neither a file, nor a folder that holds .metadata and {META_FILE}.")
    return _open(path)


def _open(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    return content


def _read(state: dict[str, Any], reader: SafeReader) -> None:
    """Fill the tensors of `state`, each rank its own shards."""
    let_errors_be_sent()
    try:
        _load(state, reader, alone=not dist.is_initialized())
    except CheckpointException as error:
        reasons = sorted({str(failure[0]) for failure in error.failures.values()})
        raise ValueError(f"{reader.path} does not hold what this training needs: {'; '.join(reasons)}") from error


def _load(state: dict[str, Any], reader: SafeReader, alone: bool) -> None:
    with warnings.catch_warnings():
        # That nothing is connected is meant.
        warnings.filterwarnings("ignore", ".*torch.distributed is disabled.*")
        dcp.load(state, storage_reader=reader, no_dist=alone)


def _like_parameters(module: L.LightningModule) -> dict[str, Tensor]:
    """FP32 tensors on the CPU, sharded as the decoder's parameters are."""
    parameters = module.get_submodule(DECODER).named_parameters()
    return {name: parameter.detach().to("cpu", torch.float32).clone() for name, parameter in parameters}


def _fill(targets: Mapping[str, Tensor], wholes: Mapping[str, Tensor], path: Path) -> None:
    missing, unexpected = targets.keys() - wholes.keys(), wholes.keys() - targets.keys()
    if missing or unexpected:
        raise ValueError(f"{path} holds another model: {_some(missing)} are missing, {_some(unexpected)} too many.")
    for name, target in targets.items():
        if target.shape != wholes[name].shape:
            raise ValueError(f"{path} holds another model: {name} is {list(wholes[name].shape)} there.")
        _copy_shard(target, wholes[name])


def _some(names: Iterable[str]) -> str:
    ordered = sorted(names)
    return ", ".join(ordered[:3]) + (f" and {len(ordered) - 3} more" if len(ordered) > 3 else "") or "none"


@torch.no_grad()
def _copy_shard(target: Tensor, whole: Tensor) -> None:
    """Copy this rank's part of `whole` into `target`; nothing is communicated, and nothing else is read of a file."""
    if not isinstance(target, DTensor):
        target.copy_(whole)
        return
    shape, offset = compute_local_shape_and_global_offset(target.shape, target.device_mesh, target.placements)
    part = whole[tuple(slice(start, start + size) for start, size in zip(offset, shape, strict=True))]
    target.to_local().copy_(part)


def _fill_optimizer(optimizer: torch.optim.Optimizer, saved: Mapping[str, Any]) -> None:
    """Load the state of an optimizer of whole parameters, which are told apart by their place in the groups."""
    for group, saved_group in zip(optimizer.param_groups, saved["param_groups"], strict=True):
        for parameter, number in zip(group["params"], saved_group["params"], strict=True):
            optimizer.state[parameter] = {
                name: _shard_like(parameter, value) for name, value in saved["state"].get(number, {}).items()
            }
        group.update({name: value for name, value in saved_group.items() if name != "params"})


def _shard_like(parameter: Tensor, value: Any) -> Any:
    if not isinstance(value, Tensor) or value.shape != parameter.shape:
        return value
    shard = torch.zeros_like(parameter, dtype=value.dtype)
    _copy_shard(shard, value)
    return shard


def _below(flat: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The entries whose names begin with `key.`, under the rest of their names."""
    return {name.removeprefix(f"{key}."): value for name, value in flat.items() if name.startswith(f"{key}.")}


def _numbered_optimizer(flat: Mapping[str, Any]) -> dict[str, Any]:
    """An optimizer's state as torch keeps it: parameters have numbers instead of names."""
    groups: list[dict[str, Any]] = []
    while group := _below(flat, f"param_groups.{len(groups)}"):
        groups.append(group)
    names = [name for group in groups for name in group["params"]]
    numbers = {name: number for number, name in enumerate(names)}
    state = {number: values for name, number in numbers.items() if (values := _below(flat, f"state.{name}"))}
    return {"state": state, "param_groups": [g | {"params": [numbers[n] for n in g["params"]]} for g in groups]}
