"""Safetensors files, whose headers are checked by us before a byte of data is believed.

The format (https://github.com/huggingface/safetensors#format): the header's length in 8 bytes, little-endian; the
header in JSON; the tensors' numbers, which it says the places of.
"""

import math
from pathlib import Path
from typing import Any

import torch

from pipeline.checkpoints.files.json_object import parse_json_object
from pipeline.checkpoints.files.raw_tensor import check_name, check_shape, raw_tensor
from pipeline.checkpoints.stored_tensor import DamagedCheckpointError, StoredTensor

LENGTH_BYTES = 8
# The limit of the reference implementation.
MAX_HEADER_BYTES = 100_000_000
METADATA = "__metadata__"
DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "U16": torch.uint16,
    "U32": torch.uint32,
    "U64": torch.uint64,
    "C64": torch.complex64,
    "F8_E8M0": torch.float8_e8m0fnu,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
}


def open_safetensors(path: Path) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    """The tensors of a file, unread, by name, and its metadata.

    Raises:
        FileNotFoundError: when there is no such file.
        DamagedCheckpointError: when the header is damaged, or does not fit the file.
    """
    header, start, data_bytes = _read_header(path)
    metadata = _check_metadata(header.pop(METADATA, None) or {}, path)
    tensors, spans = {}, []
    for name, entry in header.items():
        check_name(name, path)
        dtype, shape, begin, end = _check_entry(name, entry, path)
        spans.append((begin, end, name))
        tensors[name] = raw_tensor(path, start + begin, shape, dtype)
    _check_spans(spans, data_bytes, path)
    return tensors, metadata


def _read_header(path: Path) -> tuple[dict[str, Any], int, int]:
    """The header, where the data begin, and how many bytes of them there are."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; the checkpoint is not complete: get the file again.")
    n_bytes = path.stat().st_size
    with path.open("rb") as file:
        n_header = int.from_bytes(file.read(LENGTH_BYTES), "little")
        if not 2 <= n_header <= min(MAX_HEADER_BYTES, n_bytes - LENGTH_BYTES):
            raise DamagedCheckpointError(
                f"{path} has {n_bytes} bytes, and a header of {n_header}: it is cut off, or no safetensors file; "
                "get the file again."
            )
        content = file.read(n_header)
    start = LENGTH_BYTES + n_header
    return parse_json_object(content, path), start, n_bytes - start


def _check_metadata(metadata: object, path: Path) -> dict[str, str]:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise DamagedCheckpointError(f"{path}: {METADATA} does not map strings to strings; get the file again.")
    return metadata


def _check_entry(name: str, entry: object, path: Path) -> tuple[torch.dtype, tuple[int, ...], int, int]:
    """The type and shape of a tensor, and where it begins and ends within the data."""
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise DamagedCheckpointError(f"{path}: {name} is not described by dtype, shape and data_offsets alone.")
    if not isinstance(entry["dtype"], str) or entry["dtype"] not in DTYPES:
        raise DamagedCheckpointError(
            f"{path}: {name} is of the type {str(entry['dtype'])[:40]!r}; known are {', '.join(DTYPES)}."
        )
    dtype = DTYPES[entry["dtype"]]
    if not isinstance(entry["shape"], list):
        raise DamagedCheckpointError(f"{path}: {name} has the shape {str(entry['shape'])[:80]}, which is none.")
    shape = check_shape(name, entry["shape"], path)
    offsets = entry["data_offsets"]
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(type(offset) is int for offset in offsets):
        raise DamagedCheckpointError(f"{path}: {name} has the data_offsets {str(offsets)[:80]}, not two numbers.")
    begin, end = offsets
    # Python's numbers do not overflow.
    if end - begin != math.prod(shape) * dtype.itemsize:
        raise DamagedCheckpointError(
            f"{path}: {name} takes {end - begin} bytes, but {list(shape)} of {entry['dtype']} are "
            f"{math.prod(shape) * dtype.itemsize}; get the file again."
        )
    return dtype, shape, begin, end


def _check_spans(spans: list[tuple[int, int, str]], data_bytes: int, path: Path) -> None:
    """Every byte of the data has to belong to one tensor."""
    place = 0
    for begin, end, name in sorted(spans):
        if begin != place:
            what = "overlaps the tensor before it" if begin < place else "leaves a gap before it"
            raise DamagedCheckpointError(f"{path}: {name} begins at byte {begin} of the data, and {what}.")
        place = end
    if place != data_bytes:
        raise DamagedCheckpointError(
            f"{path} holds {data_bytes} bytes of data, but its tensors take {place}: it is cut off, or damaged; "
            "get the file again."
        )
