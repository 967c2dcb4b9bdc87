"""Torch's own files, opened without running what somebody may have hidden in them."""

from pathlib import Path
from typing import Any

from torch import Tensor

from pipeline.checkpoints.stored import StoredTensor


def open_pickle(path: Path) -> dict[str, Any]:
    """What a file holds: plain values, and tensors that are not read yet: `stored` tells how.

    Tensors are on the meta device. Files older than torch 1.6 are no archives: their tensors are in memory.

    Raises:
        FileNotFoundError: when there is no such file.
        DamagedCheckpointError: when it is damaged, would run code, or holds no dictionary.
    """
    raise NotImplementedError


def stored(tensor: Tensor, path: Path) -> StoredTensor:
    """How to read a tensor that `open_pickle` found.

    Raises:
        DamagedCheckpointError: when it would reach beyond its part of the file.
    """
    raise NotImplementedError


def verify_archive(path: Path) -> None:
    """Hold every record of an archive against its CRC-32, which torch itself does not do.

    Raises:
        DamagedCheckpointError: naming the record that changed since it was written.
    """
    raise NotImplementedError
