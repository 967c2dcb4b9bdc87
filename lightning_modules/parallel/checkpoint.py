"""Sharded checkpoints, written while training goes on."""

import io
import os
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.checkpoint.state_dict import get_model_state_dict, get_optimizer_state_dict
from torch.distributed.checkpoint.storage import WriteResult

from lightning_modules.parallel.checkpoint_folder import META_FILE, commit, partial_path, remove

MODEL = "state_dict"
OPTIMIZERS = "optimizer_states"
AVERAGE = "parameter_average"


class CheckpointError(RuntimeError):
    """A checkpoint could not be written."""


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
    """Writes a checkpoint in the background, from a copy on the CPU, and gives it its name once it is whole.

    At most one save is under way: the next waits for it, so that checkpoints appear in the order in which they were
    asked for. All methods are collective, and need a process group.
    """

    def __init__(self) -> None:
        # The background thread communicates while training does: through a group of its own, on the CPU.
        self._group: dist.ProcessGroup | None = None
        self._saving: tuple[Path, Future[Any]] | None = None

    def save(self, checkpoint: Mapping[str, Any], path: Path) -> None:
        """Begin to save, and return when the tensors may change again.

        Args:
            checkpoint: what Lightning saves. `state_dict`, `optimizer_states` and `parameter_average` hold this rank's
                shards (DTensors, or tensors that are the same on all ranks); rank 0's values are taken for the rest.
            path: the folder, the same on all ranks. One that is there is replaced when the new one is whole.

        Raises:
            CheckpointError: when the save before failed.
        """
        self.wait()
        if self._group is None:
            self._group = dist.new_group(backend="gloo")
        if dist.get_rank() == 0:
            remove(partial_path(path))
        # Every rank makes the folder when it begins: not while what a killed save left in it is removed.
        dist.barrier(group=self._group)
        tensors, rest = _split(checkpoint)
        future = dcp.async_save(
            tensors,
            storage_writer=_CommittedFolder(path, _serialised(rest)),
            process_group=self._group,
            # A copy that training does not change, made before this returns.
            async_stager=DefaultStager(StagingOptions(False, False, False, False)),
        )
        assert isinstance(future, Future)
        self._saving = path, future

    def wait(self) -> None:
        """Return when the save under way is done on all ranks, and the checkpoint has its name.

        Raises:
            CheckpointError: when it failed on any rank; says which, and why.
        """
        if self._saving is None:
            return
        path, future = self._saving
        self._saving = None
        try:
            future.result()
        except (Exception, CheckpointException) as error:
            raise CheckpointError(
                f"The checkpoint {path} could not be written: {_reason(error)}. The one before it is untouched."
            ) from error


class _CommittedFolder(dcp.FileSystemWriter):
    """Writes to the partial folder; `finish`, which rank 0 calls when all ranks have written, gives it its name."""

    def __init__(self, path: Path, meta: bytes) -> None:
        super().__init__(partial_path(path))
        self._target = path
        self._meta = meta

    def storage_meta(self) -> StorageMeta:
        """Which save this is, without the path, which is about to change."""
        return StorageMeta(save_id=self.save_id)

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Write the files that describe the shards, and commit."""
        super().finish(metadata, results)
        with (partial_path(self._target) / META_FILE).open("wb") as file:
            file.write(self._meta)
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


def _serialised(values: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(values, buffer)
    return buffer.getvalue()


def _reason(error: BaseException) -> str:
    if isinstance(error, CheckpointException):
        return "; ".join(f"rank {rank}: {_reason(failure[0])}" for rank, failure in sorted(error.failures.items()))
    return f"{type(error).__name__}: {error}"
