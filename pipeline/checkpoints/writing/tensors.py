"""Tensors on their way into a file: stacked from stored ones, and written a few million numbers at a time."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO

import numpy as np
import torch

from pipeline.checkpoints.integrity import check_finite
from pipeline.checkpoints.slices import spans
from pipeline.checkpoints.stored_tensor import StoredTensor

# Zeros become holes in the file, which read as zeros, and take no room: looked for in pieces of this many bytes, and
# not worth it in shorter ones than the least, which file systems keep in one block.
PIECE_BYTES = 2**20
LEAST_HOLE_BYTES = 2**12


@dataclass(frozen=True)
class PlannedTensor:
    """A tensor of the target: the numbers of `pieces`, one after the other.

    Raises:
        ValueError: when the pieces have not the target's type, or not as many numbers.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    pieces: tuple[StoredTensor, ...]

    def __post_init__(self) -> None:
        others = sorted({str(piece.dtype).removeprefix("torch.") for piece in self.pieces if piece.dtype != self.dtype})
        if others:
            raise ValueError(
                f"{self.name} would be made of tensors of several types, {self.dtype} and {', '.join(others)}; "
                "set dtype to bfloat16 or float32."
            )
        if math.prod(self.shape) != sum(math.prod(piece.shape) for piece in self.pieces):
            raise ValueError(f"{self.name} of the shape {list(self.shape)} cannot be made of its parts.")

    @property
    def n_bytes(self) -> int:
        """Of its numbers."""
        return math.prod(self.shape) * self.dtype.itemsize

    def readings(self) -> Iterator[Callable[[], np.ndarray]]:
        """What reads it piece by piece, as bytes; a number that is none makes it raise a `DamagedCheckpointError`."""
        for piece in self.pieces:
            for start, stop in spans(piece):
                yield partial(self._read, piece, start, stop)

    def _read(self, piece: StoredTensor, start: int, stop: int) -> np.ndarray:
        chunk = piece.read() if piece.read_rows is None else piece.read_rows(start, stop)
        check_finite(self.name, chunk, piece.file)
        return chunk.contiguous().reshape(-1).view(torch.uint8).numpy()


def planned(name: str, stored: StoredTensor) -> PlannedTensor:
    """A tensor that is written as it is stored."""
    return PlannedTensor(name, stored.shape, stored.dtype, (stored,))


def put(file: BinaryIO, block: np.ndarray) -> None:
    """Write bytes where `file` stands; long runs of zeros are skipped, which leaves a hole.

    The file has to have its length already, or get it afterwards.
    """
    for start in range(0, len(block), PIECE_BYTES):
        piece = block[start : start + PIECE_BYTES]
        if len(piece) >= LEAST_HOLE_BYTES and not piece.any():
            file.seek(len(piece), 1)
        else:
            file.write(piece.data)
