"""Indices that lead elsewhere, and shards that do not belong together."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tests.pipeline.checkpoints.malformed.corpus import Case, Pristine, edit_json

INDEX = "model.safetensors.index.json"
NAME = "model.embed_tokens.weight"
Index = dict[str, Any]


def indices(pristine: Pristine) -> Iterator[Case]:
    """Exports in shards whose index, or whose shards, are changed."""
    changes: dict[str, Callable[[Path], Any]] = {
        **{f"a shard at {target[:30]!r}": _to(target) for target in ELSEWHERE},
        **{f"weight_map is {json.dumps(value)[:30]}": _set("weight_map", value) for value in NO_MAPS},
        "a symlink to a device": lambda path: _replace_shard(path, Path("/dev/zero")),
        "a symlink to itself": lambda path: _replace_shard(path, shards(path)[0]),
        "a shard is absent": lambda path: shards(path)[0].unlink(),
        "a shard is a folder": _folder,
        "a shard is a pipe": _pipe,
        "an unknown tensor is listed": lambda path: _edit(
            path, lambda i: i["weight_map"].update({"x.weight": shards(path)[0].name})
        ),
        "a tensor is listed in another shard": lambda path: _edit(
            path, lambda i: i["weight_map"].update({NAME: shards(path)[-1].name})
        ),
        "a hostile name": lambda path: _edit(path, lambda i: i["weight_map"].update({"../x": shards(path)[0].name})),
        "a number for a file": lambda path: _edit(path, lambda i: i["weight_map"].update({NAME: 3})),
        "two shards are exchanged": _exchange,
        "two shards are the same": lambda path: shutil.copy(shards(path)[0], shards(path)[1]),
        "a shard of another width": lambda path: _rewrite(path, lambda t: t.repeat(*[2] * t.ndim)),
        "a tensor twice in the index": _twice,
        "the index is a list": lambda path: (path / INDEX).write_text("[]"),
        "the index is empty": lambda path: (path / INDEX).write_text(""),
        "the index is nested without end": lambda path: (path / INDEX).write_text('{"a":' * 60_000),
        "the index is a folder": _index_folder,
        "a mixed model of ranks": lambda path: (
            (path / "model0-mp2.safetensors").write_bytes(b"") or shards(path)[0].unlink()
        ),
    }
    for name, change in (LOOSE | changes).items():

        def write(folder: Path, change: Callable[[Path], Any] = change) -> Path:
            path = pristine.put("huggingface", folder, with_checksums=False)
            change(path)
            return path

        yield Case(f"index: {name}", write, is_good=name in LOOSE)


ELSEWHERE = (
    "../secret.safetensors",
    "/etc/passwd.safetensors",
    "/etc/passwd",
    "sub/model.safetensors",
    "..",
    ".",
    "",
    "a\x00.safetensors",
    "..\\x.safetensors",
    "x" * 300 + ".safetensors",
    "model.bin",
    "~/model.safetensors",
)
NO_MAPS = (None, {}, [], "model.safetensors", 3, {"a": {}})


def shards(path: Path) -> list[Path]:
    """The shards of an export."""
    return sorted(path.glob("model-*.safetensors"))


def _edit(path: Path, change: Callable[[Index], Any]) -> None:
    edit_json(path / INDEX, change)


def _to(target: str) -> Callable[[Path], Any]:
    def change(path: Path) -> None:
        shutil.copy(shards(path)[0], path.parent / "secret.safetensors")
        _edit(path, lambda index: index["weight_map"].update({NAME: target}))

    return change


def _set(key: str, value: Any) -> Callable[[Path], Any]:
    return lambda path: _edit(path, lambda index: index.update({key: value}))


def _replace(file: Path, folder: Path) -> None:
    outside = folder.parent / "outside"
    file.rename(outside)
    file.symlink_to(outside)


def _replace_shard(path: Path, target: Path) -> None:
    shards(path)[0].unlink()
    (path / "model-00001-of-0000X.safetensors").unlink(missing_ok=True)
    name = sorted(set(json.loads((path / INDEX).read_text())["weight_map"].values()))[0]
    (path / name).symlink_to(target)


def _link_out(path: Path) -> None:
    _replace(shards(path)[0], path)


def _folder(path: Path) -> None:
    shard = shards(path)[0]
    shard.unlink()
    shard.mkdir()


def _pipe(path: Path) -> None:
    shard = shards(path)[0]
    shard.unlink()
    os.mkfifo(shard)


def _index_folder(path: Path) -> None:
    (path / INDEX).unlink()
    (path / INDEX).mkdir()


def _exchange(path: Path) -> None:
    first, second = shards(path)[:2]
    first.rename(path / "x")
    second.rename(first)
    (path / "x").rename(second)


def _rewrite(path: Path, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    shard = shards(path)[0]
    save_file({name: change(tensor).contiguous() for name, tensor in load_file(shard).items()}, shard)


def _renumber(path: Path) -> None:
    shard = shards(path)[0]
    other = "model-00001-of-00099.safetensors"
    shard.rename(path / other)
    _edit(path, lambda i: i["weight_map"].update({n: other for n, f in i["weight_map"].items() if f == shard.name}))


def _skip_number(path: Path) -> None:
    shard = shards(path)[0]
    other = shard.name.replace("-00001-", "-00009-")
    shard.rename(path / other)
    _edit(path, lambda i: i["weight_map"].update({n: other for n, f in i["weight_map"].items() if f == shard.name}))


def _twice(path: Path) -> None:
    text = (path / INDEX).read_text()
    (path / INDEX).write_text(
        text.replace('"weight_map": {', f'"weight_map": {{"{NAME}": "model-00002-of-00002.safetensors", ', 1)
    )


# What the world does, and what no weight depends on.
LOOSE: dict[str, Callable[[Path], Any]] = {
    "no change": lambda path: _edit(path, lambda index: None),
    **{f"total_size is {value}": _set("metadata", {"total_size": value}) for value in (0, 1, -5, 2**70, "12")},
    "metadata is null": _set("metadata", None),
    "a shard on another disk": _link_out,
    "a tensor is not listed": lambda path: _edit(path, lambda i: i["weight_map"].pop(NAME)),
    "a shard of another type": lambda path: _rewrite(path, lambda t: t.bfloat16() if t.ndim == 2 else t),
    "a shard numbered otherwise": _renumber,
    "a shard number is left out": _skip_number,
    "expert loads on another disk": lambda path: _replace(path / "expert_loads.safetensors", path),
}
