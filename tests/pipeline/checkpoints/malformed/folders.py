"""Sharded checkpoints whose index and chunks disagree, and things that are no checkpoints."""

import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
)

from tests.pipeline.checkpoints.malformed.corpus import CHECKSUMS, Case, Pristine

NAME = "state_dict.decoder.layers.1.self_attn.kv_b_proj.weight"


def folders(pristine: Pristine) -> Iterator[Case]:
    """Sharded checkpoints, the index changed or files removed."""
    for name, change in INDEX.items():

        def write(folder: Path, change: Callable[[Metadata], Any] = change) -> Path:
            path = pristine.put("distributed", folder, with_checksums=False)
            metadata = pickle.loads((path / ".metadata").read_bytes())
            replaced = change(metadata)
            (path / ".metadata").write_bytes(pickle.dumps(metadata if replaced is None else replaced))
            return path

        yield Case(f"sharded: {name}", write, is_good=name == "no change")
    for name, damage in (LOOSE | FILES).items():

        def write_damaged(folder: Path, damage: Callable[[Path], Any] = damage) -> Path:
            path = pristine.put("distributed", folder, with_checksums=False)
            damage(path)
            return path

        yield Case(f"sharded: {name}", write_damaged, is_good=name in LOOSE)
    for layout in ("huggingface", "deepseek", "distributed"):
        for name in pristine.files(layout):
            if name not in (CHECKSUMS, "expert_loads.safetensors", "architecture.json"):
                yield Case(f"{layout}: no {name}", _without(pristine, layout, name))
    yield from _others()


def _without(pristine: Pristine, layout: str, name: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        path = pristine.put(layout, folder, with_checksums=False)
        (path / name).unlink()
        return path

    return write


def _place(metadata: Metadata, **changes: Any) -> None:
    place = next(place for index, place in metadata.storage_data.items() if index.fqn == NAME)
    for name, value in changes.items():
        setattr(place, name, value)


def _tensor(metadata: Metadata) -> Any:
    return metadata.state_dict_metadata[NAME]


def _chunk(metadata: Metadata, offsets: tuple[int, ...], sizes: tuple[int, ...]) -> None:
    _tensor(metadata).chunks = [ChunkStorageMetadata(torch.Size(offsets), torch.Size(sizes))]


def _overlapping(metadata: Metadata) -> None:
    """As many numbers as there are, some of them twice."""
    rows, columns = _tensor(metadata).size
    for start in (0, 1):
        index = MetadataIndex(NAME, torch.Size([start, 0]))
        metadata.storage_data[index] = _StorageInfo("__0_0.distcp", 0, 10)
    _tensor(metadata).chunks = [
        ChunkStorageMetadata(torch.Size([start, 0]), torch.Size([rows // 2, columns])) for start in (0, 1)
    ]


def _exchange(path: Path) -> None:
    shutil.copy(path / "__0_1.distcp", path / "__0_3.distcp")


def _link(path: Path) -> None:
    (path / "__0_1.distcp").rename(path.parent / "outside")
    (path / "__0_1.distcp").symlink_to(path.parent / "outside")


INDEX: dict[str, Callable[[Metadata], Any]] = {
    "no change": lambda m: None,
    "a file outside": lambda m: _place(m, relative_path="../outside"),
    "an absolute file": lambda m: _place(m, relative_path="/etc/passwd"),
    "a file that is a number": lambda m: _place(m, relative_path=3),
    "a file that is absent": lambda m: _place(m, relative_path="absent.distcp"),
    "a place beyond the file": lambda m: _place(m, offset=2**30),
    "a negative place": lambda m: _place(m, offset=-10),
    "a place within": lambda m: _place(m, offset=8),
    "a length beyond the file": lambda m: _place(m, length=2**40),
    "a length too short": lambda m: _place(m, length=40),
    "a length of text": lambda m: _place(m, length="9"),
    "an unknown transformation": lambda m: _place(m, transform_descriptors=["zstd"]),
    "no places": lambda m: m.storage_data.clear(),
    "places that are none": lambda m: setattr(m, "storage_data", None),
    "no tensors": lambda m: m.state_dict_metadata.clear(),
    "tensors in a list": lambda m: setattr(m, "state_dict_metadata", []),
    "a tensor that is bytes": lambda m: m.state_dict_metadata.update({NAME: BytesStorageMetadata()}),
    "a chunk beyond the tensor": lambda m: _chunk(m, (0, 0), (100, 100)),
    "a chunk too small": lambda m: _chunk(m, (0, 0), (1, 1)),
    "a chunk of other dimensions": lambda m: _chunk(m, (0,), (32,)),
    "a negative chunk": lambda m: _chunk(m, (-1, 0), (8, 4)),
    "no chunks": lambda m: setattr(_tensor(m), "chunks", []),
    "chunks that overlap": _overlapping,
    "chunks that are none": lambda m: setattr(_tensor(m), "chunks", [1, 2]),
    "an absurd size": lambda m: setattr(_tensor(m), "size", torch.Size([2**62, 2**62])),
    "a size of text": lambda m: setattr(_tensor(m), "size", "8x4"),
    "another size": lambda m: (setattr(_tensor(m), "size", torch.Size([4, 8])), _chunk(m, (0, 0), (4, 8)))[:0] or None,
    "another type": lambda m: setattr(_tensor(m), "properties", TensorProperties(torch.int16)),
    "a type that is none": lambda m: setattr(_tensor(m), "properties", None),
    "an index that is a dictionary": lambda m: {"state_dict": {}},
    "an index that is nothing": lambda m: (),
    "a hostile name": lambda m: m.state_dict_metadata.update({"../x": _tensor(m)}),
}
FILES: dict[str, Callable[[Path], Any]] = {
    "a chunk of another tensor": _exchange,
    "a chunk of zeros": lambda path: (path / "__0_2.distcp").write_bytes(bytes((path / "__0_2.distcp").stat().st_size)),
    "meta.pt is a list": lambda path: torch.save([1, 2], path / "meta.pt"),
    "meta.pt is empty": lambda path: torch.save({}, path / "meta.pt"),
    ".metadata is a pipe": lambda path: ((path / ".metadata").unlink(), os.mkfifo(path / ".metadata")),
}


def _replace(file: Path) -> None:
    outside = file.parents[1] / "outside"
    file.rename(outside)
    file.symlink_to(outside)


# What the world does, and what no weight depends on.
LOOSE: dict[str, Callable[[Path], Any]] = {
    "a chunk on another disk": _link,
    "meta.pt on another disk": lambda path: _replace(path / "meta.pt"),
    ".metadata on another disk": lambda path: _replace(path / ".metadata"),
}


def _others() -> Iterator[Case]:
    """Things that are no checkpoints."""
    contents = {
        "an empty file": b"",
        "random bytes": bytes(range(256)) * 20,
        "text": b"once upon a time",
        "the beginning of a zip": b"PK\x03\x04" + bytes(100),
        "the end of a zip": b"PK\x05\x06" + bytes(18),
        "HTML": b"<html><body>404 Not Found</body></html>",
        "a pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n",
        "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(64),
        "GGUF": b"GGUF" + bytes(64),
        "gzip": b"\x1f\x8b\x08" + bytes(64),
    }
    for name, content in contents.items():

        def write(folder: Path, content: bytes = content) -> Path:
            (folder / "model.ckpt").write_bytes(content)
            return folder / "model.ckpt"

        yield Case(f"no checkpoint: {name}", write)
    makers: dict[str, Callable[[Path], Any]] = {
        "nothing": lambda path: None,
        "an empty folder": lambda path: path.mkdir(),
        "a pipe": lambda path: os.mkfifo(path),
        "a link to itself": lambda path: path.symlink_to(path),
        "a link to nothing": lambda path: path.symlink_to(path.parent / "absent"),
        "a device": lambda path: path.symlink_to("/dev/zero"),
    }
    for name, make in makers.items():

        def write_other(folder: Path, make: Callable[[Path], Any] = make) -> Path:
            make(folder / "model.ckpt")
            return folder / "model.ckpt"

        yield Case(f"no checkpoint: {name}", write_other)
