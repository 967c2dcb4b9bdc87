"""Folders of safetensors: one file, or shards with an index as `transformers` writes them."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pipeline.checkpoints.files.json_object import read_json_object
from pipeline.checkpoints.files.raw_tensor import check_name
from pipeline.checkpoints.files.safetensors_file import open_safetensors
from pipeline.checkpoints.stored_tensor import DamagedCheckpointError, StoredTensor

INDEX_FILE = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"
NUMBERED = re.compile(r".+-(\d+)-of-(\d+)\.safetensors")
# One export may hold FP8 beside one of these, but not the same weight of different layers in two of them.
WIDE_TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def open_sharded(folder: Path) -> dict[str, StoredTensor]:
    """The tensors of all shards, unread, by name.

    Raises:
        FileNotFoundError: when there is neither an index nor a single file, or a shard is absent.
        DamagedCheckpointError: when the index is damaged, leads out of the folder, or disagrees with the shards, or
            when these come from different exports.
    """
    index = folder / INDEX_FILE
    if not index.exists():
        return open_safetensors(inside(folder, SINGLE_FILE, folder))[0]
    description = read_json_object(index)
    weight_map = _check_weight_map(description.get("weight_map"), index)
    files = sorted(set(weight_map.values()))
    _check_numbers(files, index)
    paths = {file: inside(folder, file, index) for file in files}
    tensors: dict[str, StoredTensor] = {}
    for file, path in paths.items():
        shard = open_safetensors(path)[0]
        for name in shard:
            if weight_map.get(name) != file:
                expected = weight_map.get(name, "no shard")
                raise DamagedCheckpointError(
                    f"{path} holds {name}, which {index} expects in {expected}; the two come from different exports."
                )
        tensors |= shard
    for name, file in weight_map.items():
        if name not in tensors:
            raise DamagedCheckpointError(f"{index} lists {name} in {file}, which does not hold it.")
    _check_total(description.get("metadata"), tensors, index)
    check_types_agree(tensors)
    return tensors


def inside(folder: Path, name: str, referrer: Path) -> Path:
    """The file `name` of a folder, which must lie there, or where the cache of the Hugging Face hub links to.

    Args:
        folder: the checkpoint's.
        name: a plain file name.
        referrer: what names the file, for messages.

    Raises:
        FileNotFoundError: when it is not there.
        DamagedCheckpointError: when it leads out of the folder.
    """
    if name != Path(name).name or not name.isprintable() or "\\" in name or len(name) > 255:
        raise DamagedCheckpointError(f"{referrer} names the file {name[:80]!r}, which is none of its folder.")
    path = folder / name
    try:
        target = path.resolve()
    # Python 3.12 and earlier, and later.
    except (RuntimeError, OSError):
        raise DamagedCheckpointError(f"{path} is a link to itself; put the file there.") from None
    # The hub keeps `<repository>/snapshots/<revision>/<name>`, linked to `<repository>/blobs/<digest>`.
    is_snapshot = folder.absolute().parent.name == "snapshots"
    allowed = [folder.resolve(), *([folder.resolve().parents[1] / "blobs"] if is_snapshot else [])]
    if target.parent not in allowed:
        raise DamagedCheckpointError(f"{path} is a link to {target}, outside its folder; put the file itself there.")
    if not path.is_file():
        raise FileNotFoundError(f"{path}, which {referrer} needs, does not exist; get the file again.")
    return path


def check_types_agree(tensors: Mapping[str, StoredTensor]) -> None:
    """Raise a `DamagedCheckpointError` when two files hold the same weight of two layers in different wide types."""
    first: dict[str, tuple[str, StoredTensor]] = {}
    for name, tensor in tensors.items():
        if tensor.dtype not in WIDE_TYPES:
            continue
        role = re.sub(r"\d+", "*", name)
        other_name, other = first.setdefault(role, (name, tensor))
        if other.dtype != tensor.dtype and other.file != tensor.file:
            raise DamagedCheckpointError(
                f"{tensor.file} holds {name} in {tensor.dtype}, but {other.file} holds {other_name} in {other.dtype}: "
                "the shards come from different exports; get all of one."
            )


def _check_weight_map(weight_map: Any, index: Path) -> dict[str, str]:
    if not isinstance(weight_map, dict) or not weight_map:
        raise DamagedCheckpointError(f"{index} has no weight_map that says where tensors are; get the file again.")
    for name, file in weight_map.items():
        check_name(name, index)
        if not isinstance(file, str) or not file.endswith(".safetensors"):
            raise DamagedCheckpointError(f"{index} places {name} in {str(file)[:80]!r}, which is no safetensors file.")
    return weight_map


def _check_numbers(files: list[str], index: Path) -> None:
    """Shards named `…-00001-of-00004` have to be all four, each once."""
    numbered = [(int(match[1]), int(match[2]), file) for file in files if (match := NUMBERED.fullmatch(file))]
    counts = {count for _, count, _ in numbered}
    if len(counts) > 1:
        raise DamagedCheckpointError(
            f"{index} names {numbered[0][2]} beside shards of another export: of {sorted(counts)} in all."
        )
    if counts and sorted(number for number, _, _ in numbered) != list(range(1, len(numbered) + 1)):
        raise DamagedCheckpointError(f"{index} names {len(numbered)} shards, not all of {counts.pop()}.")
    if counts and counts != {len(numbered)}:
        raise DamagedCheckpointError(f"{index} names {len(numbered)} of {counts.pop()} shards; get the file again.")


def _check_total(metadata: Any, tensors: Mapping[str, StoredTensor], index: Path) -> None:
    """The index of some exporters says how many bytes the tensors of all shards have."""
    total = metadata.get("total_size") if isinstance(metadata, dict) else None
    n_bytes = sum(tensor.n_bytes for tensor in tensors.values())
    if total is not None and total != n_bytes:
        raise DamagedCheckpointError(
            f"{index} tells of {total} bytes of tensors, but the shards hold {n_bytes}: they come from different "
            "exports; get all of one."
        )
