"""Checks of what is read, beyond the structure of files: numbers that are none, and bytes that have changed."""

import math
from pathlib import Path

import torch
from torch import Tensor

from lightning_modules.parallel.checkpoint_folder import METADATA_FILE
from lightning_modules.precision.emulation import E4M3
from pipeline.checkpoints.files.pickle_file import verify_archive
from pipeline.checkpoints.fp8_numbers import has_nan
from pipeline.checkpoints.slices import CACHED_NUMBERS
from pipeline.checkpoints.stored_tensor import DamagedCheckpointError
from pipeline.checkpoints.writing.checksums import checksums_path, verify


def check_finite(name: str, tensor: Tensor, file: Path) -> None:
    """Raise unless every number of a tensor is finite.

    Args:
        name: of the tensor, for the message.
        tensor: of any type of numbers, FP8 among them.
        file: where it came from.

    Raises:
        DamagedCheckpointError: when there is a NaN or an infinity.
    """
    if _is_finite(tensor):
        return
    # Torch asks no FP8 number whether it is one.
    finite = (tensor.float() if tensor.itemsize == 1 else tensor).isfinite()
    if not bool(finite.all()):
        raise DamagedCheckpointError(
            f"{file}: {name} holds {int((~finite).sum())} numbers that are NaN or infinite; take an earlier checkpoint."
        )


def _is_finite(tensor: Tensor) -> bool:
    """Whether a fast look finds every number finite: a NaN or an infinity makes a sum one, as huge numbers may."""
    if tensor.dtype == E4M3:
        return not has_nan(tensor)
    if not tensor.is_floating_point() or tensor.itemsize == 1:
        return not tensor.is_floating_point()
    sums = [piece.sum(dtype=torch.float32) for piece in tensor.reshape(-1).split(CACHED_NUMBERS)]
    return all(math.isfinite(total) for total in sums)


def verify_bytes(path: Path) -> None:
    """Read a whole checkpoint, and hold it against the checksums that it carries, of whatever kind.

    Torch's archives hold a CRC-32 of every record, our exports a SHA-256 of every file. Files without checksums pass.

    Raises:
        FileNotFoundError, DamagedCheckpointError: naming the file, and what in it changed since it was written.
    """
    if checksums_path(path).is_file():
        verify(path)
    elif path.is_file():
        verify_archive(path)
    elif (path / METADATA_FILE).is_file():
        # The index takes torch.distributed.checkpoint, and that seconds to import.
        from pipeline.checkpoints.files.distributed_folder import verify_distributed

        verify_distributed(path)
