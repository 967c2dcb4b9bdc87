"""Sharded checkpoints of torch.distributed.checkpoint, read chunk by chunk without its planner.

The index tells of every tensor in which chunks it was saved, and of every chunk in which file it lies, and where: an
archive of its own, as torch.save writes it, of one tensor.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex, TensorStorageMetadata

from lightning_modules.parallel.checkpoint_folder import INDEX_DIGEST, META_FILE, METADATA_FILE, index_digest
from lightning_modules.parallel.checkpoint_metadata import SafeReader
from pipeline.checkpoints.files.file_part import FilePart
from pipeline.checkpoints.files.pickle_file import load_archive, open_pickle, stored, verify_archive
from pipeline.checkpoints.files.pickle_scan import check_expansion
from pipeline.checkpoints.files.raw_tensor import check_name, check_shape
from pipeline.checkpoints.files.shard_index import inside
from pipeline.checkpoints.files.torch_archive import check_sums
from pipeline.checkpoints.stored_tensor import DamagedCheckpointError, StoredTensor


@dataclass(frozen=True)
class _Chunk:
    """A part of a tensor, and the part of a file that holds it."""

    name: str
    dtype: torch.dtype
    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    file: Path
    start: int
    n_bytes: int

    @property
    def ends(self) -> tuple[int, ...]:
        return tuple(offset + size for offset, size in zip(self.offsets, self.sizes, strict=True))

    @cached_property
    def tensor(self) -> StoredTensor:
        """What lies there: looked at once, when it is first read, for there may be a hundred thousand chunks.

        Raises:
            DamagedCheckpointError: it is not what the index says.
        """
        label = f"{self.file}: {self.name}"
        with FilePart.open(self.file, self.start, self.n_bytes) as file:
            tensor = load_archive(file, self.n_bytes, label)
        if not isinstance(tensor, Tensor) or tuple(tensor.shape) != self.sizes or tensor.dtype != self.dtype:
            raise DamagedCheckpointError(
                f"{label} is not the {self.dtype} of the shape {list(self.sizes)} that the index says; "
                "get the file again."
            )
        return stored(tensor, self.file, self.start)


def open_distributed(path: Path) -> tuple[dict[str, StoredTensor], dict[str, Any]]:
    """The tensors of a sharded checkpoint, unread, by their own names, and the values of its `meta.pt`.

    Whether a chunk is the tensor that the index says is seen when it is read.

    Raises:
        FileNotFoundError: when a file of it is absent.
        DamagedCheckpointError: when the index is damaged, refers to anything but tensors, or disagrees with the files.
    """
    index = path / METADATA_FILE
    values = open_pickle(inside(path, META_FILE, path))
    values.pop(INDEX_DIGEST, None)
    tensors = {}
    for name, dtype, shape, chunks in _described_tensors(path):
        _check_tiling(name, shape, chunks, index)
        if shape:
            rows = partial(_read_rows, dtype, shape, chunks)
            tensors[name] = StoredTensor(shape, dtype, index, partial(rows, 0, shape[0]), read_rows=rows)
        else:
            tensors[name] = StoredTensor(shape, dtype, index, partial(_read_scalar, chunks[0]))
    return tensors, values


def verify_distributed(path: Path) -> None:
    """Hold every chunk of a sharded checkpoint against its CRC-32, `meta.pt` too, and the index against its digest.

    Raises:
        FileNotFoundError, DamagedCheckpointError: naming the file, and the tensor in it.
    """
    meta = inside(path, META_FILE, path)
    verify_archive(meta)
    digest = open_pickle(meta).get(INDEX_DIGEST)
    if digest is not None and digest != index_digest(path):
        raise DamagedCheckpointError(f"{path / METADATA_FILE} has changed since it was written; get the file again.")
    for name, _, _, chunks in _described_tensors(path):
        for chunk in chunks:
            with FilePart.open(chunk.file, chunk.start, chunk.n_bytes) as file:
                check_sums(file, f"{chunk.file}: {name}")


def _described_tensors(path: Path) -> Iterator[tuple[str, torch.dtype, tuple[int, ...], list[_Chunk]]]:
    """(name, type, shape, chunks) of every tensor that the index tells of."""
    index = inside(path, METADATA_FILE, path)
    with index.open("rb") as file:
        check_expansion(file, 1, str(index))
    try:
        metadata = SafeReader(path).read_metadata()
    except DamagedCheckpointError:
        raise
    except ValueError as error:
        raise DamagedCheckpointError(f"{error} Get the file again.") from None
    try:
        sizes = {name: (path / name).stat().st_size for name in _file_names(metadata, path)}
        for name, tensor in metadata.state_dict_metadata.items():
            if not isinstance(tensor, TensorStorageMetadata):
                continue
            shape = check_shape(check_name(name, index), tensor.size, index)
            dtype = tensor.properties.dtype
            if not isinstance(dtype, torch.dtype):
                raise DamagedCheckpointError(f"{index}: {name} has the type {dtype!r}, which is none.")
            yield name, dtype, shape, _chunks(name, tensor, metadata, path, sizes)
    # What the index is made of was checked by name alone; attributes may be absent, or anything.
    except (AttributeError, KeyError, TypeError) as error:
        raise DamagedCheckpointError(
            f"{index} is damaged ({type(error).__name__}: {error}); get the file again."
        ) from None


def _file_names(metadata: Metadata, path: Path) -> set[str]:
    names = {info.relative_path for info in metadata.storage_data.values()}
    for name in names:
        if not isinstance(name, str):
            raise DamagedCheckpointError(f"{path / METADATA_FILE} names the file {name!r}, which is none.")
        inside(path, name, path / METADATA_FILE)
    return names


def _chunks(
    name: str, tensor: TensorStorageMetadata, metadata: Metadata, path: Path, file_sizes: dict[str, int]
) -> list[_Chunk]:
    chunks = []
    for described in tensor.chunks:
        offsets = check_shape(name, described.offsets, path / METADATA_FILE)
        place = metadata.storage_data.get(MetadataIndex(name, offsets))
        if place is None:
            raise DamagedCheckpointError(f"{path / METADATA_FILE} does not say where {name} at {list(offsets)} lies.")
        if place.transform_descriptors:
            raise DamagedCheckpointError(
                f"{path}: {name} is stored by {place.transform_descriptors}, which is unknown."
            )
        # Two numbers with the limits of a shape's.
        start, n_bytes = check_shape(name, (place.offset, place.length), path / METADATA_FILE)
        file = path / place.relative_path
        if start + n_bytes > file_sizes[place.relative_path]:
            raise DamagedCheckpointError(
                f"{file} has {file_sizes[place.relative_path]} bytes, but {name} would end at byte {start + n_bytes}: "
                "it was cut off; get the file again."
            )
        sizes = check_shape(name, described.sizes, path / METADATA_FILE)
        chunks.append(_Chunk(name, tensor.properties.dtype, offsets, sizes, file, start, n_bytes))
    return sorted(chunks, key=lambda chunk: chunk.offsets)


def _check_tiling(name: str, shape: tuple[int, ...], chunks: Sequence[_Chunk], index: Path) -> None:
    """Every number of a tensor has to lie in one chunk."""
    within = all(
        len(chunk.offsets) == len(chunk.sizes) == len(shape)
        and all(end <= side for end, side in zip(chunk.ends, shape, strict=True))
        for chunk in chunks
    )
    if not within or sum(math.prod(chunk.sizes) for chunk in chunks) != math.prod(shape) or not chunks:
        raise DamagedCheckpointError(f"{index}: the chunks of {name} do not make up {list(shape)}; get the file again.")
    for left, right in _neighbours(chunks):
        if all(
            max(a, b) < min(c, d) for a, b, c, d in zip(left.offsets, right.offsets, left.ends, right.ends, strict=True)
        ):
            raise DamagedCheckpointError(f"{index}: two chunks of {name} overlap; get the file again.")


def _neighbours(chunks: Sequence[_Chunk]) -> Iterator[tuple[_Chunk, _Chunk]]:
    """Pairs of chunks that may overlap; `chunks` are in order of their offsets."""
    for index, left in enumerate(chunks):
        for right in itertools.islice(chunks, index + 1, None):
            if not left.offsets or right.offsets[0] >= left.ends[0]:
                break
            yield left, right


def _read_scalar(chunk: _Chunk) -> Tensor:
    return chunk.tensor.read()


def _read_rows(dtype: torch.dtype, shape: tuple[int, ...], chunks: Sequence[_Chunk], start: int, stop: int) -> Tensor:
    """Rows `start:stop` of a tensor, from the chunks that hold some of them."""
    rows = torch.empty(stop - start, *shape[1:], dtype=dtype)
    for chunk in chunks:
        first, last = max(start, chunk.offsets[0]), min(stop, chunk.ends[0])
        if first >= last:
            continue
        begin, end = first - chunk.offsets[0], last - chunk.offsets[0]
        tensor = chunk.tensor
        part = tensor.read_rows(begin, end) if tensor.read_rows is not None else tensor.read()[begin:end]
        if part.shape == rows.shape:
            return part
        columns = (slice(a, b) for a, b in zip(chunk.offsets[1:], chunk.ends[1:], strict=True))
        rows[(slice(first - start, last - start), *columns)] = part
    return rows
