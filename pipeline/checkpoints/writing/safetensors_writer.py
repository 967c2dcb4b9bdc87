"""Safetensors files, written tensor by tensor: the library itself wants a whole file in memory.

The format: the length of the header in 8 bytes, little end first; the header, JSON, filled up with spaces to a multiple
of 8; and the tensors without gaps, row by row (https://github.com/huggingface/safetensors).
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch

from pipeline.checkpoints.writing.plan import PlannedFile
from pipeline.checkpoints.writing.read_ahead import read_ahead
from pipeline.checkpoints.writing.tensors import PlannedTensor, put

TYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
}


def safetensors_file(name: str, tensors: Sequence[PlannedTensor]) -> PlannedFile:
    """Plan a file of the given tensors, in their order."""
    return PlannedFile(name, sum(tensor.n_bytes for tensor in tensors), partial(_write, tensors))


def _write(tensors: Sequence[PlannedTensor], path: Path, advance: Callable[[int], None]) -> str:
    header = _header(tensors)
    digest = hashlib.sha256(header)
    with path.open("wb") as file:
        file.truncate(len(header) + sum(tensor.n_bytes for tensor in tensors))
        file.write(header)
        for block in read_ahead(reading for tensor in tensors for reading in tensor.readings()):
            put(file, block)
            digest.update(block.data)
            advance(len(block))
    return digest.hexdigest()


def _header(tensors: Sequence[PlannedTensor]) -> bytes:
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for tensor in tensors:
        entries[tensor.name] = {
            "dtype": TYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + tensor.n_bytes],
        }
        offset += tensor.n_bytes
    header = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header
