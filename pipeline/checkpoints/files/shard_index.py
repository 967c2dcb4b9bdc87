"""Folders of safetensors: one file, or shards with an index as `transformers` writes them."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipeline.checkpoints.files.json_object import read_json_object
from pipeline.checkpoints.files.raw_tensor import check_name
from pipeline.checkpoints.files.safetensors_file import open_safetensors
from pipeline.checkpoints.stored_tensor import DamagedCheckpointError, StoredTensor

INDEX_FILE = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"
WIDE_TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True)
class Shards:
    """What lies in a folder of safetensors.

    Attributes:
        tensors: those of all files, unread, by name.
        left_out: names of what is there, or listed at least, and was not asked for.
        doubts: what is odd about them, and no reason to refuse them.
    """

    tensors: dict[str, StoredTensor]
    left_out: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()


def open_sharded(folder: Path, is_needed: Callable[[str], bool] = lambda name: True) -> Shards:
    """The tensors of all shards, unread, by name.

    Of what the index says besides, nothing is believed: `total_size` counts other bytes than the files' in DeepSeek's
    own release, and shards of several exports may lie beside each other, as grafted prediction modules do. Whether all
    is there is asked of the architecture.

    Args:
        folder: the checkpoint's.
        is_needed: whether a tensor of this name is asked for; a file that holds no other may be absent.

    Raises:
        FileNotFoundError: when there is neither an index nor a single file, or a shard is absent.
        DamagedCheckpointError: when the index is damaged, leads out of the folder, or disagrees with the shards.
    """
    index = folder / INDEX_FILE
    if not index.exists():
        found = open_safetensors(inside(folder, SINGLE_FILE, folder))[0]
        return Shards(_needed(found, is_needed), tuple(name for name in found if not is_needed(name)))
    weight_map = _check_weight_map(read_json_object(index).get("weight_map"), index)
    files = sorted({file for name, file in weight_map.items() if is_needed(name)})
    # All names are checked before the first header is read.
    paths = {file: inside(folder, file, index) for file in files}
    tensors: dict[str, StoredTensor] = {}
    unlisted: list[str] = []
    for file, path in paths.items():
        shard = _needed(open_safetensors(path)[0], is_needed)
        for name in shard:
            expected = weight_map.get(name, file)
            if expected != file or name in tensors:
                raise DamagedCheckpointError(
                    f"{path} holds {name}, which {index} expects in {expected}; the two come from different exports."
                )
        unlisted += [name for name in shard if name not in weight_map]
        tensors |= shard
    for name, file in weight_map.items():
        if name not in tensors and is_needed(name):
            raise DamagedCheckpointError(f"{index} lists {name} in {file}, which does not hold it.")
    left_out = tuple(name for name in weight_map if not is_needed(name))
    return Shards(tensors, left_out, (*_unlisted(unlisted, index), *_types(tensors)))


def inside(folder: Path, name: str, referrer: Path) -> Path:
    """The file `name` of a folder, which may be a link, as in the hub's cache, and where shards moved to another disk.

    Whoever writes a link into a folder could write the file itself there; what names a file, though, may come from
    anywhere, and has to name one of the folder.

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
    if not target.exists():
        raise FileNotFoundError(f"{path}, which {referrer} needs, does not exist; get the file again.")
    if not target.is_file():
        raise DamagedCheckpointError(f"{path}, which {referrer} needs, is no file; get it again.")
    return path


def _needed(tensors: dict[str, StoredTensor], is_needed: Callable[[str], bool]) -> dict[str, StoredTensor]:
    return {name: tensor for name, tensor in tensors.items() if is_needed(name)}


def _unlisted(names: list[str], index: Path) -> tuple[str, ...]:
    if not names:
        return ()
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return (f"{index} does not list {names[0]}{more}, which its shards hold.",)


def _types(tensors: Mapping[str, StoredTensor]) -> tuple[str, ...]:
    """Whether two files hold the same weight of two layers in different wide types, as those of two exports do."""
    first: dict[str, tuple[str, StoredTensor]] = {}
    for name, tensor in tensors.items():
        if tensor.dtype not in WIDE_TYPES:
            continue
        role = re.sub(r"\d+", "*", name)
        other_name, other = first.setdefault(role, (name, tensor))
        if other.dtype != tensor.dtype and other.file != tensor.file:
            return (
                f"{tensor.file} holds {name} in {tensor.dtype}, but {other.file} holds {other_name} in {other.dtype}: "
                "the shards may come from different exports.",
            )
    return ()


def _check_weight_map(weight_map: Any, index: Path) -> dict[str, str]:
    if not isinstance(weight_map, dict) or not weight_map:
        raise DamagedCheckpointError(f"{index} has no weight_map that says where tensors are; get the file again.")
    for name, file in weight_map.items():
        check_name(name, index)
        if not isinstance(file, str) or not file.endswith(".safetensors"):
            raise DamagedCheckpointError(f"{index} places {name} in {str(file)[:80]!r}, which is no safetensors file.")
    return weight_map
