"""Checkpoints of a single device: one file, written whole or not at all."""

import os
import sys
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.fabric.utilities.types import _PATH

from lightning_modules.parallel.background_saves import BackgroundSaves, CheckpointError, copy_to_cpu
from lightning_modules.parallel.checkpoint_folder import commit, is_sharded, partial_path
from lightning_modules.parallel.checkpoint_loading import gather_checkpoint


class CheckpointFiles(TorchCheckpointIO):
    """Saves to one file in the background, and loads such a file or the sharded folder of a parallel training.

    Attributes:
        saves: what is under way.
    """

    def __init__(self) -> None:
        super().__init__()
        self.saves = BackgroundSaves()

    def save_checkpoint(self, checkpoint: dict[str, Any], path: _PATH, storage_options: Any | None = None) -> None:
        """Begin to save, and return when the tensors may change again; see `BackgroundSaves`."""
        self.saves.save(Path(path), partial(_write, copy_to_cpu(checkpoint), Path(path)))

    def load_checkpoint(
        self, path: _PATH, map_location: Any = None, weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Load everything onto the CPU, without unpickling, once nothing is being written."""
        self.saves.wait()
        if is_sharded(Path(path)):
            return gather_checkpoint(Path(path))
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return checkpoint

    def teardown(self) -> None:
        """Finish what is being written; after an error that is another's, without one of its own."""
        with suppress(CheckpointError) if sys.exc_info()[0] is not None else nullcontext():
            self.saves.wait()


def _write(checkpoint: dict[str, Any], path: Path) -> None:
    """Write beside, then rename: a process that is killed meanwhile, or finds the disk full, damages nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with partial_path(path).open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        commit(path)
    finally:
        partial_path(path).unlink(missing_ok=True)
