"""Parts of stored tensors, and stored tensors joined: read when asked for, and no more of them than needed."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.precision.emulation import BLOCK
from pipeline.checkpoints.names import Part, own_tensors, published_parts
from pipeline.checkpoints.stored_tensor import DamagedCheckpointError, StoredTensor

# Rounding makes a few FP32 copies of what is read at a time.
CHUNK_NUMBERS = 8 * 2**20
# What is compared is read into memory that is used again: larger pieces get new pages from the system each time.
COMPARED_NUMBERS = 2**20
# So many at a time stay in a processor's cache between one step and the next.
CACHED_NUMBERS = 2**17


def rows(stored: StoredTensor, start: int, stop: int) -> StoredTensor:
    """`stored[start:stop]`, its blocks' factors with it.

    Raises:
        ValueError: when an FP8 tensor is cut within a block of 128 rows.
    """
    return replace(
        stored,
        shape=(stop - start, *stored.shape[1:]),
        read=partial(read_rows, stored, start, stop),
        read_rows=partial(_shifted, stored, start),
        scale=None if stored.scale is None else rows(stored.scale, *_blocks(stored, 0, start, stop)),
    )


def columns(stored: StoredTensor, start: int, stop: int) -> StoredTensor:
    """`stored[:, start:stop]`, its blocks' factors with it.

    Raises:
        ValueError: when an FP8 tensor is cut within a block of 128 columns.
    """
    return replace(
        stored,
        shape=(stored.shape[0], stop - start),
        read=partial(_narrowed, stored, start, stop, 0, stored.shape[0]),
        read_rows=partial(_narrowed, stored, start, stop),
        scale=None if stored.scale is None else columns(stored.scale, *_blocks(stored, 1, start, stop)),
    )


def part_of(stored: StoredTensor, part: Part) -> StoredTensor:
    """The published tensor that lies at `part` of one of the decoder's own."""
    if part.expert is None:
        return stored
    return replace(
        stored,
        shape=part.shape,
        read=partial(_of_expert, stored, part, 0, part.shape[0]),
        read_rows=partial(_of_expert, stored, part),
    )


def split_own(tensors: Mapping[str, StoredTensor], config: DecoderConfig, path: Path) -> dict[str, StoredTensor]:
    """Tensors under the decoder's own names as published ones; names that it does not have stay as they are.

    Raises:
        DamagedCheckpointError: when a tensor has another shape than the architecture asks for.
    """
    expected = own_tensors(config)
    for name, stored in tensors.items():
        if name in expected and stored.shape != tuple(expected[name].shape):
            raise DamagedCheckpointError(
                f"{path}: {name} has the shape {list(stored.shape)}, but the architecture asks for "
                f"{list(expected[name].shape)}; the file holds another model than its configuration says."
            )
    parts = published_parts(config)
    found = {name: part_of(tensors[part.own], part) for name, part in parts.items() if part.own in tensors}
    return found | {name: stored for name, stored in tensors.items() if name not in expected}


def joined(pieces: Sequence[StoredTensor], dim: int) -> StoredTensor:
    """Matrices side by side: along rows (`dim` 0) or columns (1).

    Raises:
        ValueError: when their other sides or types differ, or FP8 pieces do not end with a whole block.
    """
    first, other = pieces[0], 1 - dim
    alike = {(piece.dtype, piece.shape[other], piece.scale is None) for piece in pieces}
    if len(alike) > 1:
        raise ValueError("the pieces have different types or sides")
    if first.scale is not None and any(piece.shape[dim] % BLOCK for piece in pieces[:-1]):
        raise ValueError(f"the pieces do not end with a whole block of {BLOCK}")
    length = sum(piece.shape[dim] for piece in pieces)
    reader = partial(_joined_rows if dim == 0 else _joined_columns, pieces)
    shape = (length, first.shape[1]) if dim == 0 else (first.shape[0], length)
    scales = [piece.scale for piece in pieces if piece.scale is not None]
    return replace(
        first,
        shape=shape,
        read=partial(reader, 0, shape[0]),
        read_rows=reader,
        scale=joined(scales, dim) if scales else None,
    )


def read_rows(stored: StoredTensor, start: int, stop: int) -> Tensor:
    """`stored[start:stop]`, now; no more is read than has to be."""
    if stored.read_rows is not None:
        return stored.read_rows(start, stop)
    return stored.read()[start:stop]


def chunks(stored: StoredTensor, n_numbers: int = CHUNK_NUMBERS) -> Iterator[tuple[int, Tensor]]:
    """Read a tensor in pieces of about `n_numbers`: (first row, rows), whole blocks of 128 rows each."""
    for start, stop in spans(stored, n_numbers):
        yield start, stored.read() if stored.read_rows is None else stored.read_rows(start, stop)


def spans(stored: StoredTensor, n_numbers: int = CHUNK_NUMBERS) -> Iterator[tuple[int, int]]:
    """The rows of pieces of about `n_numbers`, whole blocks of 128 rows each; one that has none is one piece."""
    n_rows = stored.shape[0] if stored.shape else 1
    if not stored.shape or stored.read_rows is None:
        yield 0, n_rows
        return
    numbers_per_row = max(1, math.prod(stored.shape[1:]))
    step = max(BLOCK, n_numbers // numbers_per_row // BLOCK * BLOCK)
    for start in range(0, n_rows, step):
        yield start, min(n_rows, start + step)


def same_numbers(left: StoredTensor, right: StoredTensor) -> bool:
    """Whether two tensors are the same bit for bit."""
    if left.shape != right.shape or left.dtype != right.dtype:
        return False
    if left.read_rows is None or right.read_rows is None:
        return same_bits(left.read(), right.read())
    return all(
        same_bits(chunk, read_rows(right, start, start + len(chunk))) for start, chunk in chunks(left, COMPARED_NUMBERS)
    )


def same_bits(left: Tensor, right: Tensor) -> bool:
    """Whether two tensors of one type and shape are the same bit for bit, NaN and negative zero included."""
    return torch.equal(_bytes(left), _bytes(right))


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def _blocks(stored: StoredTensor, dim: int, start: int, stop: int) -> tuple[int, int]:
    """Which blocks of 128 hold `start:stop`."""
    if start % BLOCK or (stop % BLOCK and stop != stored.shape[dim]):
        raise ValueError(f"{start}:{stop} cuts through a block of {BLOCK}")
    return start // BLOCK, -(-stop // BLOCK)


def _shifted(stored: StoredTensor, offset: int, start: int, stop: int) -> Tensor:
    return read_rows(stored, offset + start, offset + stop)


def _narrowed(stored: StoredTensor, left: int, right: int, start: int, stop: int) -> Tensor:
    return read_rows(stored, start, stop)[:, left:right].contiguous()


def _of_expert(stored: StoredTensor, part: Part, start: int, stop: int) -> Tensor:
    assert part.expert is not None
    matrix = read_rows(stored, part.expert, part.expert + 1)[0]
    return matrix[part.start + start : part.start + stop].clone()


def _joined_rows(pieces: Sequence[StoredTensor], start: int, stop: int) -> Tensor:
    found, offset = [], 0
    for piece in pieces:
        first, last = max(start - offset, 0), min(stop - offset, piece.shape[0])
        if first < last:
            found.append(read_rows(piece, first, last))
        offset += piece.shape[0]
    return found[0] if len(found) == 1 else torch.cat([_as_bytes(t) for t in found]).view(pieces[0].dtype)


def _joined_columns(pieces: Sequence[StoredTensor], start: int, stop: int) -> Tensor:
    found = [_as_bytes(read_rows(piece, start, stop)) for piece in pieces]
    return torch.cat(found, dim=1).view(pieces[0].dtype)


def _as_bytes(tensor: Tensor) -> Tensor:
    """As bytes, the last dimension that many times longer: not every operation knows FP8."""
    return tensor.contiguous().view(torch.uint8)
