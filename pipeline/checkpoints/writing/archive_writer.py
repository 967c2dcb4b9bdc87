"""Torch's own archives, written tensor by tensor.

`torch.save` lays the archive out and leaves the tensors' places empty (`torch.serialization.skip_data`); they are
filled in afterwards, and with them the CRC-32 of every one, so that any zip program finds the file whole.
"""

import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from pipeline.checkpoints.writing.plan import PlannedFile
from pipeline.checkpoints.writing.read_ahead import read_ahead
from pipeline.checkpoints.writing.tensors import PlannedTensor, put

# Of the zip format (APPNOTE 6.3.10): sections 4.3.7, 4.3.9 and 4.3.12.
_LOCAL_HEADER, _DIRECTORY_HEADER = 30, 46
_DESCRIPTOR = b"PK\x07\x08"
_CRC_IN_DESCRIPTOR, _CRC_IN_DIRECTORY = 4, 16


def archive_file(
    name: str, tensors: Sequence[PlannedTensor], arrange: Callable[[dict[str, Tensor]], Any]
) -> PlannedFile:
    """Plan a file that `torch.load` reads.

    Args:
        name: of the file.
        tensors: what it will hold.
        arrange: puts tensors by their names into what is saved, in their order.
    """
    return PlannedFile(name, sum(tensor.n_bytes for tensor in tensors), partial(_write, tensors, arrange))


def _write(
    tensors: Sequence[PlannedTensor],
    arrange: Callable[[dict[str, Tensor]], Any],
    path: Path,
    advance: Callable[[int], None],
) -> None:
    with FakeTensorMode():
        empty = {tensor.name: torch.empty(tensor.shape, dtype=tensor.dtype) for tensor in tensors}
    with torch.serialization.skip_data(materialize_fake_tensors=True):
        torch.save(arrange(empty), path)
    with zipfile.ZipFile(path) as archive:
        records = {record.filename.partition("/")[2]: record for record in archive.infolist()}
        checksum_places = _checksum_places(path, archive.start_dir, len(records))
    with path.open("r+b") as file:
        for index, tensor in enumerate(tensors):
            record = records[f"data/{index}"]
            assert record.file_size == tensor.n_bytes
            checksum = _fill(file, record, tensor, advance)
            file.seek(checksum_places[record.filename])
            file.write(struct.pack("<I", checksum))


def _fill(file: BinaryIO, record: zipfile.ZipInfo, tensor: PlannedTensor, advance: Callable[[int], None]) -> int:
    """Write a tensor into its place in the archive; returns its CRC-32, which is written behind it."""
    file.seek(record.header_offset + _LOCAL_HEADER - 4)
    name_length, extra_length = struct.unpack("<HH", file.read(4))
    start = record.header_offset + _LOCAL_HEADER + name_length + extra_length
    file.seek(start)
    checksum = 0
    for block in read_ahead(tensor.readings()):
        put(file, block)
        checksum = zlib.crc32(block.data, checksum)
        advance(len(block))
    file.seek(start + record.file_size)
    if file.read(len(_DESCRIPTOR)) == _DESCRIPTOR:
        file.seek(start + record.file_size + _CRC_IN_DESCRIPTOR)
        file.write(struct.pack("<I", checksum))
    return checksum


def _checksum_places(path: Path, start: int, n_records: int) -> dict[str, int]:
    """Where the archive's directory, which begins at `start`, keeps the CRC-32 of every record."""
    places = {}
    with path.open("rb") as file:
        for _ in range(n_records):
            file.seek(start)
            header = file.read(_DIRECTORY_HEADER)
            lengths = struct.unpack_from("<HHH", header, 28)
            places[file.read(lengths[0]).decode()] = start + _CRC_IN_DIRECTORY
            start += _DIRECTORY_HEADER + sum(lengths)
    return places
