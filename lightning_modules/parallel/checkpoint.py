"""Sharded checkpoints, written while training goes on."""

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta
from torch.distributed.checkpoint.state_dict import get_model_state_dict, get_optimizer_state_dict
from torch.distributed.checkpoint.storage import WriteResult

from lightning_modules.parallel.background_saves import BackgroundSaves, copy_to_cpu
from lightning_modules.parallel.checkpoint_folder import (
    INDEX_DIGEST,
    META_FILE,
    commit,
    index_digest,
    partial_path,
    remove,
)
from lightning_modules.parallel.sent_errors import let_errors_be_sent

MODEL = "state_dict"
OPTIMIZERS = "optimizer_states"
AVERAGE = "parameter_average"


def optimizer_key(index: int) -> str:
    """Lightning's name, in a sharded checkpoint, of an optimizer's state."""
    return f"optimizer_{index}"


def model_state(module: nn.Module) -> dict[str, Any]:
    """Every rank's shards of the parameters and buffers, by name: the live tensors, not copies."""
    return get_model_state_dict(module)


def optimizer_state(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Every rank's shards of the optimizer's state, by the parameters' names: the live tensors, not copies."""
    return get_optimizer_state_dict(module, optimizer)


class CheckpointWriter:
    """Writes sharded checkpoints in the background, from a copy on the CPU, and names each once it is whole.

    All methods are collective, and need a process group.

    Attributes:
        saves: what is under way; the same on all ranks, so that checkpoints appear in the order they were asked for.
    """

    def __init__(self) -> None:
        # The background thread communicates while training does: through a group of its own, on the CPU.
        self._group: dist.ProcessGroup | None = None
        self.saves = BackgroundSaves()
        let_errors_be_sent()

    def save(self, checkpoint: Mapping[str, Any], path: Path) -> None:
        """Begin to save, and return when the tensors may change again.

        Args:
            checkpoint: what Lightning saves. `state_dict`, `optimizer_states` and `parameter_average` hold this rank's
                shards (DTensors, or tensors that are the same on all ranks); rank 0's values are taken for the rest.
            path: the folder, the same on all ranks. One that is there is replaced when the new one is whole.

        Raises:
            CheckpointError: when a save before failed.
        """
        if self._group is None:
            self._group = dist.new_group(backend="gloo")
        tensors, rest = copy_to_cpu(_split(checkpoint))
        self.saves.save(path, partial(self._write, tensors, rest, path))

    def wait(self) -> None:
        """Return when no save is under way on this rank, and each checkpoint has its name.

        Raises:
            CheckpointError: when one failed on any rank; says which, and why.
        """
        self.saves.wait()

    def _write(self, tensors: dict[str, Any], rest: dict[str, Any], path: Path) -> None:
        if dist.get_rank() == 0:
            remove(partial_path(path))
        # Every rank makes the folder when it begins: not while what a killed save left in it is removed.
        dist.barrier(group=self._group)
        dcp.save(tensors, storage_writer=_CommittedFolder(path, rest), process_group=self._group)


class _CommittedFolder(dcp.FileSystemWriter):
    """Writes to the partial folder; `finish`, which rank 0 calls when all ranks have written, gives it its name."""

    def __init__(self, path: Path, rest: dict[str, Any]) -> None:
        super().__init__(partial_path(path))
        self._target = path
        self._rest = rest

    def storage_meta(self) -> StorageMeta:
        """Which save this is, without the path, which is about to change."""
        return StorageMeta(save_id=self.save_id)

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Write the files that describe the shards, and commit."""
        super().finish(metadata, results)
        folder = partial_path(self._target)
        with (folder / META_FILE).open("wb") as file:
            torch.save(self._rest | {INDEX_DIGEST: index_digest(folder)}, file)
            file.flush()
            os.fsync(file.fileno())
        commit(self._target)


def _split(checkpoint: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What torch.distributed.checkpoint writes, and the rest."""
    rest = dict(checkpoint)
    tensors = {MODEL: rest.pop(MODEL)}
    tensors |= {optimizer_key(index): state for index, state in enumerate(rest.pop(OPTIMIZERS, []))}
    if AVERAGE in rest:
        tensors[AVERAGE] = rest.pop(AVERAGE)
    return tensors, rest
