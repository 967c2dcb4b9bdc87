"""Checks of what is read, beyond the structure of files: numbers that are none, and bytes that have changed."""

from pathlib import Path

from torch import Tensor

from pipeline.checkpoints.stored import DamagedCheckpointError


def check_finite(name: str, tensor: Tensor, file: Path) -> None:
    """Raise unless every number of a tensor is finite.

    Args:
        name: of the tensor, for the message.
        tensor: of any type of numbers, FP8 among them.
        file: where it came from.

    Raises:
        DamagedCheckpointError: when there is a NaN or an infinity.
    """
    if not tensor.is_floating_point():
        return
    # FP8 knows no reductions; a sum in FP32 is finite only if all are, and needs no second copy of wider types.
    numbers = tensor if tensor.dtype.itemsize > 1 else tensor.float()
    if not bool(numbers.isfinite().all()):
        n_bad = int((~numbers.isfinite()).sum())
        raise DamagedCheckpointError(
            f"{file}: {name} holds {n_bad} numbers that are NaN or infinite; take an earlier checkpoint."
        )


def verify_bytes(path: Path) -> None:
    """Read a whole checkpoint, and hold it against the checksums that it carries, of whatever kind.

    Torch's archives hold a CRC-32 of every record, our exports a SHA-256 of every file. Files without checksums pass.

    Raises:
        DamagedCheckpointError: naming the file, and the record in it, that changed since it was written.
    """
    raise NotImplementedError
