"""Sharded checkpoints of torch.distributed.checkpoint, read chunk by chunk without its planner."""

from pathlib import Path
from typing import Any

from pipeline.checkpoints.stored import StoredTensor


def open_distributed(path: Path) -> tuple[dict[str, StoredTensor], dict[str, Any]]:
    """The tensors of a sharded checkpoint, unread, by their own names, and the values of its `meta.pt`.

    Raises:
        FileNotFoundError: when a file of it is absent.
        DamagedCheckpointError: when the index is damaged, refers to anything but tensors, or disagrees with the files.
    """
    raise NotImplementedError
