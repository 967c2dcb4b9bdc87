"""Torch's own files, opened without running what somebody may have hidden in them."""

import re
import warnings
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple

import torch
from torch import Tensor, nn

from pipeline.checkpoints.files.pickle_scan import check_expansion
from pipeline.checkpoints.files.raw_tensor import check_shape, raw_tensor, read_bytes
from pipeline.checkpoints.files.torch_archive import check_archive, check_sums, is_archive
from pipeline.checkpoints.stored_tensor import DamagedCheckpointError, StoredTensor

# Of an old file: a magic number, a version, the machine's word sizes, the content, and the names of its storages.
N_OLD_PICKLES = 5
# Where torch notes the place of a storage that it was told not to read.
_OFFSET = "_checkpoint_offset"


class _Span(NamedTuple):
    """The part of a tensor's storage that it reaches: its first and its end, in numbers."""

    start: int
    stop: int


def open_pickle(path: Path) -> dict[str, Any]:
    """What a file holds: plain values, and tensors that are not read yet: `stored` tells how.

    Tensors are on the meta device. Files older than torch 1.6 are no archives: their tensors are in memory.

    Raises:
        FileNotFoundError: when there is no such file.
        DamagedCheckpointError: when it is damaged, would run code, or holds no dictionary.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist, or is no file.")
    if is_archive(path):
        with path.open("rb") as file:
            content = load_archive(file, path.stat().st_size, str(path))
    else:
        with path.open("rb") as file:
            check_expansion(file, N_OLD_PICKLES, str(path))
        content = _load(path, "cpu", str(path))
    if not isinstance(content, dict):
        raise DamagedCheckpointError(f"{path} holds a {type(content).__name__}, not a dictionary of weights.")
    return content


def load_archive(file: IO[bytes], n_bytes: int, label: str) -> Any:
    """What an archive holds; its tensors are on the meta device, and their storages know their places in it.

    Args:
        file: the archive.
        n_bytes: its size.
        label: what it is called in messages.

    Raises:
        DamagedCheckpointError: when it is damaged, or would run code.
    """
    records = check_archive(file, n_bytes, label)
    file.seek(0)
    content = _load(file, "meta", label)
    _check_storages(content, records, label)
    return content


def stored(tensor: Tensor, path: Path, archive_start: int = 0) -> StoredTensor:
    """How to read a tensor that `open_pickle` found.

    Args:
        tensor: on the meta device, or in memory.
        path: the file.
        archive_start: where in the file the archive begins.

    Raises:
        DamagedCheckpointError: when it is no plain tensor, or would reach beyond its part of the file.
    """
    if type(tensor) not in (Tensor, nn.Parameter) or tensor.layout != torch.strided or tensor.is_quantized:
        raise DamagedCheckpointError(f"{path} holds a {type(tensor).__name__} that is no plain tensor of numbers.")
    if tensor.is_neg() or tensor.is_conj():
        raise DamagedCheckpointError(f"{path} holds the negative view of a tensor, which no weight is.")
    shape = check_shape("a tensor", tuple(tensor.shape), path)
    span = _span(tensor, path)
    tensor = tensor.detach()
    if not tensor.is_meta:
        read = partial(tensor.clone, memory_format=torch.contiguous_format)
        return StoredTensor(shape, tensor.dtype, path, read, read_rows=partial(_copy_rows, tensor) if shape else None)
    offset = archive_start + getattr(tensor.untyped_storage(), _OFFSET) + span.start * tensor.itemsize
    if tensor.is_contiguous():
        return raw_tensor(path, offset, shape, tensor.dtype)
    read = partial(_read_strided, path, offset, span.stop - span.start, tensor.dtype, shape, tensor.stride())
    return StoredTensor(shape, tensor.dtype, path, read)


def verify_archive(path: Path) -> None:
    """Hold every record of an archive against its CRC-32, which torch itself does not do.

    A file that is no archive has no checksums, and passes.

    Raises:
        DamagedCheckpointError: naming the record that changed since it was written.
    """
    if is_archive(path):
        with path.open("rb") as file:
            check_sums(file, str(path))


def _load(file: Path | IO[bytes], device: str, label: str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(file, map_location=device, weights_only=True)
    # A mutated pickle makes torch raise nearly anything: KeyError, struct.error, UnicodeDecodeError, …
    except Exception as error:
        hidden = re.search(r"GLOBAL (\S+)|reduce for unrecognized function (.+?)(?: which|$)", str(error))
        if hidden:
            raise DamagedCheckpointError(
                f"{label} refers to {hidden[1] or hidden[2]}, which weights have no need of; nothing of it was run. "
                "Do not open it by other means unless you trust whoever made it."
            ) from None
        raise DamagedCheckpointError(
            f"{label} is no file of torch, or it is damaged ({_reason(error)}); get the file again."
        ) from None


def _reason(error: Exception) -> str:
    """What torch says, without its advice to open the file in a way that runs code."""
    lines = [line for line in str(error).splitlines() if line.strip() and "weights_only" not in line]
    return f"{type(error).__name__}: {lines[-1].strip()[:200]}" if lines else type(error).__name__


def _check_storages(content: Any, records: dict[int, int], label: str) -> None:
    """Every tensor's storage has to be one record of the archive, all of it."""
    pending, seen = [content], set()
    while pending:
        value = pending.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, dict):
            pending += value.values()
        elif isinstance(value, list | tuple):
            pending += value
        elif isinstance(value, Tensor) and value.layout == torch.strided:
            storage = value.untyped_storage()
            offset = getattr(storage, _OFFSET, None)
            if not value.is_meta or records.get(offset) != storage.nbytes():  # type: ignore[arg-type]
                raise DamagedCheckpointError(
                    f"{label}: a tensor of the shape {list(value.shape)} does not lie where one of the archive's "
                    "records does; get the file again, or, if it was packed anew, load and save it once more."
                )


def _span(tensor: Tensor, path: Path) -> _Span:
    """Which numbers of its storage a tensor reaches.

    Raises:
        DamagedCheckpointError: when they are not all there, or it repeats them, as only a bomb does.
    """
    start = int(tensor.storage_offset())
    reach = sum((int(side) - 1) * int(stride) for side, stride in zip(tensor.shape, tensor.stride(), strict=True))
    stop = start + reach + 1 if tensor.numel() else start
    if stop * tensor.itemsize > tensor.untyped_storage().nbytes() or tensor.numel() > stop - start:
        raise DamagedCheckpointError(
            f"{path}: a tensor of the shape {list(tensor.shape)} and strides {list(tensor.stride())} does not fit into "
            f"the {tensor.untyped_storage().nbytes()} bytes that the file has for it; get the file again."
        )
    return _Span(start, stop)


def _copy_rows(tensor: Tensor, start: int, stop: int) -> Tensor:
    return tensor[start:stop].clone(memory_format=torch.contiguous_format)


def _read_strided(
    path: Path, offset: int, n_numbers: int, dtype: torch.dtype, shape: tuple[int, ...], strides: tuple[int, ...]
) -> Tensor:
    numbers = read_bytes(path, offset, n_numbers * dtype.itemsize).view(dtype)
    return numbers.as_strided(shape, strides).contiguous()
