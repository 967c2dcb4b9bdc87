"""A tensor's bytes in a file, read when they are asked for."""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.checkpoints.stored_tensor import DamagedCheckpointError, StoredTensor

MAX_NAME_LENGTH = 256
# Printable ASCII but what separates folders.
PLAIN_NAME = re.compile(r"[!-.0-\[\]-~]+")
MAX_DIMENSIONS = 8
# No weight has a side that long; beyond lies what would overflow.
MAX_SIDE = 2**40


def raw_tensor(path: Path, offset: int, shape: Sequence[int], dtype: torch.dtype) -> StoredTensor:
    """The tensor whose numbers lie one after the other in `path`, from byte `offset` on.

    Reading raises a `DamagedCheckpointError` when the file has become shorter meanwhile.
    """
    shape = tuple(shape)
    read_rows = partial(_read_rows, path, offset, shape, dtype) if shape else None
    return StoredTensor(shape, dtype, path, partial(_read, path, offset, shape, dtype), read_rows=read_rows)


def check_name(name: object, path: Path) -> str:
    """The name, if it can be one of a tensor: printable ASCII, of a sensible length, and nothing of a path.

    Raises:
        DamagedCheckpointError: otherwise.
    """
    if isinstance(name, str) and 0 < len(name) <= MAX_NAME_LENGTH and PLAIN_NAME.fullmatch(name):
        return name
    shown = repr(name)[:80]
    raise DamagedCheckpointError(f"{path} names a tensor {shown}, which cannot be one's name; get the file again.")


def check_shape(name: str, shape: object, path: Path) -> tuple[int, ...]:
    """The shape, if a tensor can have it.

    Raises:
        DamagedCheckpointError: when it is none, or absurd.
    """
    sides: list[Any] = list(shape) if isinstance(shape, list | tuple) else [None]
    if len(sides) > MAX_DIMENSIONS or not all(type(side) is int and 0 <= side <= MAX_SIDE for side in sides):
        raise DamagedCheckpointError(
            f"{path}: {name} has the shape {str(shape)[:80]}, which no tensor has; get the file again."
        )
    return tuple(sides)


def read_bytes(path: Path, offset: int, n_bytes: int) -> Tensor:
    """Bytes of a file, as a tensor of `torch.uint8`.

    Raises:
        DamagedCheckpointError: when the file ends before.
    """
    buffer = torch.empty(n_bytes, dtype=torch.uint8)
    with path.open("rb") as file:
        file.seek(offset)
        n_read = file.readinto(buffer.numpy().data)
    if n_read != n_bytes:
        raise DamagedCheckpointError(f"{path} ends before byte {offset + n_bytes}: it was cut off; get the file again.")
    return buffer


def _read(path: Path, offset: int, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    n_bytes = torch.Size(shape).numel() * dtype.itemsize
    return read_bytes(path, offset, n_bytes).view(dtype).reshape(shape)


def _read_rows(path: Path, offset: int, shape: tuple[int, ...], dtype: torch.dtype, start: int, stop: int) -> Tensor:
    row_bytes = torch.Size(shape[1:]).numel() * dtype.itemsize
    return _read(path, offset + start * row_bytes, (stop - start, *shape[1:]), dtype)
