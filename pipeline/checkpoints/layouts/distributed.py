"""Training checkpoints of many ranks: the folder that torch.distributed.checkpoint and `lightning_modules` share."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_modules.parallel.checkpoint_folder import META_FILE, METADATA_FILE
from pipeline.checkpoints.architecture_match import OpenOptions
from pipeline.checkpoints.layouts.training_state import (
    AVERAGE,
    WEIGHTS,
    names,
    planned_stacks,
    training_source,
    training_values,
)
from pipeline.checkpoints.stored_tensor import CheckpointSource
from pipeline.checkpoints.writing.archive_writer import archive_file
from pipeline.checkpoints.writing.plan import ConversionOptions, Plan, PlannedFile
from pipeline.checkpoints.writing.tensors import PlannedTensor

__all__ = ["LOOKS_FOR", "NAME", "names", "open_source", "plan", "recognises"]
NAME = "distributed"
LOOKS_FOR = f"a folder with {METADATA_FILE} and {META_FILE}"


def recognises(path: Path) -> bool:
    """Whether a folder holds an index of torch.distributed.checkpoint, or what lies beside one."""
    return (path / METADATA_FILE).is_file() or (path / META_FILE).is_file()


def open_source(path: Path, options: OpenOptions) -> CheckpointSource:
    """Open a sharded training checkpoint; tensors stay on the disk.

    Raises:
        FileNotFoundError: when a file of it is absent.
        DamagedCheckpointError: when it is not a training checkpoint, incomplete, or damaged.
    """
    # The index takes torch.distributed.checkpoint, and that seconds to import.
    from pipeline.checkpoints.files.distributed_folder import open_distributed

    tensors, values = open_distributed(path)
    prefix = f"{WEIGHTS}."
    weights = {name.removeprefix(prefix): stored for name, stored in tensors.items() if name.startswith(prefix)}
    others = {name.partition(".")[0]: None for name in tensors if not name.startswith(prefix)}
    mean = f"{AVERAGE}."
    average = {name.removeprefix(mean): stored for name, stored in tensors.items() if name.startswith(mean)}
    return training_source(weights, average, {**others, **values}, NAME, path, options)


def plan(source: CheckpointSource, options: ConversionOptions) -> Plan:
    """Plan a file for every tensor, several for one that is larger than `shard_bytes`, and the index.

    Raises:
        ValueError: when there is FP8 among the tensors.
    """
    from pipeline.checkpoints.files.distributed_index import Chunk, write_index

    tensors = planned_stacks(source)
    pieces = [piece for tensor in tensors for piece in _cut(tensor, options.shard_bytes)]
    chunks = [Chunk(tensor, start, f"__0_{index}.distcp") for index, (start, tensor) in enumerate(pieces)]
    files = [archive_file(chunk.file, (chunk.tensor,), _alone) for chunk in chunks]
    index = PlannedFile(METADATA_FILE, 0, partial(write_index, tensors, chunks))
    meta = PlannedFile(META_FILE, 0, partial(_write_meta, training_values(source)))
    return Plan((*files, meta, index), is_folder=True, n_tensors=len(tensors))


def _cut(tensor: PlannedTensor, n_bytes: int) -> Iterator[tuple[int, PlannedTensor]]:
    """A stack in parts of at most `n_bytes`, or one matrix: (first matrix, part). What is no stack stays whole."""
    if len(tensor.pieces) == 1:
        yield 0, tensor
        return
    n_matrices = tensor.shape[0]
    pieces_each = len(tensor.pieces) // n_matrices
    step = max(1, n_bytes // (tensor.n_bytes // n_matrices))
    for start in range(0, n_matrices, step):
        stop = min(n_matrices, start + step)
        pieces = tensor.pieces[start * pieces_each : stop * pieces_each]
        yield start, PlannedTensor(tensor.name, (stop - start, *tensor.shape[1:]), tensor.dtype, pieces)


def _alone(tensors: dict[str, Tensor]) -> Tensor:
    (tensor,) = tensors.values()
    return tensor


def _write_meta(values: dict[str, Any], path: Path, advance: Callable[[int], None]) -> None:
    torch.save(values, path)
