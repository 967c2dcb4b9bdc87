"""The index of a sharded checkpoint, written without the processes that torch.distributed.checkpoint writes it from."""

import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)

from pipeline.checkpoints.layouts.training_state import WEIGHTS
from pipeline.checkpoints.writing.tensors import PlannedTensor

# As torch.distributed.checkpoint names the format of its index.
INDEX_VERSION = "1.0.0"


@dataclass(frozen=True)
class Chunk:
    """Rows of a tensor from `start` on, and the file that holds them."""

    tensor: PlannedTensor
    start: int
    file: str


def write_index(
    tensors: Sequence[PlannedTensor], chunks: Sequence[Chunk], path: Path, advance: Callable[[int], None]
) -> None:
    """Write what torch.distributed.checkpoint finds tensors by; the files that it lists are there already."""
    by_tensor: dict[str, list[Chunk]] = {}
    for chunk in chunks:
        by_tensor.setdefault(chunk.tensor.name, []).append(chunk)
    described: dict[str, TensorStorageMetadata | BytesStorageMetadata] = {}
    places = {}
    for tensor in tensors:
        name = f"{WEIGHTS}.{tensor.name}"
        found = []
        for index, chunk in enumerate(by_tensor[tensor.name]):
            offsets = torch.Size([chunk.start] + [0] * (len(tensor.shape) - 1))
            found.append(ChunkStorageMetadata(offsets, torch.Size(chunk.tensor.shape)))
            n_bytes = (path.parent / chunk.file).stat().st_size
            places[MetadataIndex(name, offsets, index)] = _StorageInfo(chunk.file, 0, n_bytes)
        described[name] = TensorStorageMetadata(TensorProperties(tensor.dtype), torch.Size(tensor.shape), found)
    keys = {f"{WEIGHTS}.{tensor.name}": (WEIGHTS, tensor.name) for tensor in tensors}
    path.write_bytes(pickle.dumps(Metadata(described, keys, places, StorageMeta(), INDEX_VERSION)))
