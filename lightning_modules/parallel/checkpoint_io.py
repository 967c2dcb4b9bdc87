"""Checkpoints of a single device: one file, written whole or not at all."""

import os
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.fabric.utilities.types import _PATH

from lightning_modules.parallel.checkpoint_folder import commit, is_sharded, partial_path
from lightning_modules.parallel.checkpoint_loading import gather_checkpoint


class CheckpointFiles(TorchCheckpointIO):
    """Saves to one file, and loads such a file or the sharded folder of a parallel training."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: _PATH, storage_options: Any | None = None) -> None:
        """Write beside, then rename: a process that is killed meanwhile damages nothing."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial_path(path).open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        commit(path)

    def load_checkpoint(
        self, path: _PATH, map_location: Any = None, weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Load everything onto the CPU, without unpickling."""
        if is_sharded(Path(path)):
            return gather_checkpoint(Path(path))
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return checkpoint
