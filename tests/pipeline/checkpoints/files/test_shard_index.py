"""Folders of shards that belong together; `malformed/indices.py` has those that do not."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from pipeline.checkpoints.files.shard_index import INDEX_FILE, open_sharded
from pipeline.checkpoints.stored_tensor import DamagedCheckpointError

FIRST = {"layers.0.q.weight": torch.randn(4, 4), "layers.0.norm.weight": torch.randn(4)}
SECOND = {"layers.1.q.weight": torch.randn(4, 4)}


def write_shards(folder: Path, *shards: dict[str, Tensor], metadata: dict[str, int] | None = None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    weight_map = {}
    for number, shard in enumerate(shards, start=1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file(shard, folder / name)
        weight_map |= dict.fromkeys(shard, name)
    (folder / INDEX_FILE).write_text(json.dumps({"metadata": metadata, "weight_map": weight_map}))


@pytest.mark.parametrize(
    "metadata", [{}, {"total_size": 144}, {"total_size": 1369062772000}, {"total_parameters": 36}, None]
)
def test_shards_are_read_through_the_index(tmp_path: Path, metadata: dict[str, int] | None) -> None:
    write_shards(tmp_path, FIRST, SECOND, metadata=metadata)
    found = open_sharded(tmp_path).tensors
    assert {name: stored.read().tolist() for name, stored in found.items()} == {
        name: tensor.tolist() for name, tensor in (FIRST | SECOND).items()
    }


def test_a_single_file_needs_no_index(tmp_path: Path) -> None:
    save_file(FIRST, tmp_path / "model.safetensors")
    assert open_sharded(tmp_path).tensors.keys() == FIRST.keys()


def test_a_header_s_metadata_may_be_null(tmp_path: Path) -> None:
    save_file(FIRST, tmp_path / "model.safetensors", {"format": "pt"})
    content = (tmp_path / "model.safetensors").read_bytes()
    changed = content.replace(b'{"format":"pt"}', b"null           ")
    assert changed != content
    (tmp_path / "model.safetensors").write_bytes(changed)
    assert open_sharded(tmp_path).tensors.keys() == FIRST.keys()


def test_links_are_followed(tmp_path: Path) -> None:
    # As the hub's cache has them, its folder reached through a link itself, and blobs moved to another disk.
    snapshot = tmp_path / "models--owner--name" / "snapshots" / "abc"
    write_shards(snapshot, FIRST, SECOND)
    blobs, elsewhere = snapshot.parents[1] / "blobs", tmp_path / "elsewhere"
    blobs.mkdir()
    for shard in list(snapshot.glob("*.safetensors")):
        shard.rename(blobs / shard.name)
        shard.symlink_to(Path("../../blobs") / shard.name)
    (tmp_path / "model").symlink_to(snapshot)
    assert open_sharded(snapshot).tensors.keys() == (FIRST | SECOND).keys()
    assert open_sharded(tmp_path / "model").tensors.keys() == (FIRST | SECOND).keys()
    blobs.rename(elsewhere)
    blobs.symlink_to(elsewhere)
    assert open_sharded(tmp_path / "model").tensors.keys() == (FIRST | SECOND).keys()
    (elsewhere / "model-00001-of-00002.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="model-00001-of-00002"):
        open_sharded(tmp_path / "model")


def test_bf16_beside_fp32_is_said(tmp_path: Path) -> None:
    write_shards(tmp_path, FIRST, {"layers.1.q.weight": torch.randn(4, 4).to(torch.float8_e4m3fn)})
    assert open_sharded(tmp_path).doubts == ()
    write_shards(tmp_path, FIRST, {"layers.1.q.weight": torch.randn(4, 4).bfloat16()})
    (doubt,) = open_sharded(tmp_path).doubts
    assert "holds layers.1.q.weight in torch.bfloat16" in doubt
    # Within one file an exporter may have meant it.
    write_shards(tmp_path, FIRST | {"layers.1.q.weight": torch.randn(4, 4).bfloat16()})
    assert open_sharded(tmp_path).doubts == ()


def test_a_tensor_that_is_not_listed_is_taken_unless_two_shards_hold_it(tmp_path: Path) -> None:
    write_shards(tmp_path, FIRST, SECOND)
    index = json.loads((tmp_path / INDEX_FILE).read_text())
    del index["weight_map"]["layers.0.q.weight"]
    (tmp_path / INDEX_FILE).write_text(json.dumps(index))
    found = open_sharded(tmp_path)
    assert found.tensors.keys() == (FIRST | SECOND).keys()
    assert found.doubts == (f"{tmp_path / INDEX_FILE} does not list layers.0.q.weight, which its shards hold.",)
    save_file(SECOND | FIRST, tmp_path / "model-00002-of-00002.safetensors")
    with pytest.raises(DamagedCheckpointError, match="different exports"):
        open_sharded(tmp_path)
