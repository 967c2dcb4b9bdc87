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
    (folder / INDEX_FILE).write_text(json.dumps({"metadata": metadata or {}, "weight_map": weight_map}))


@pytest.mark.parametrize("metadata", [{}, {"total_size": 144}, {"total_parameters": 36}])
def test_shards_are_read_through_the_index(tmp_path: Path, metadata: dict[str, int]) -> None:
    write_shards(tmp_path, FIRST, SECOND, metadata=metadata)
    found = open_sharded(tmp_path)
    assert {name: stored.read().tolist() for name, stored in found.items()} == {
        name: tensor.tolist() for name, tensor in (FIRST | SECOND).items()
    }


def test_a_single_file_needs_no_index(tmp_path: Path) -> None:
    save_file(FIRST, tmp_path / "model.safetensors")
    assert open_sharded(tmp_path).keys() == FIRST.keys()


def test_links_are_followed_within_the_cache_of_the_hub_alone(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--owner--name" / "snapshots" / "abc"
    write_shards(snapshot, FIRST, SECOND)
    blobs = snapshot.parents[1] / "blobs"
    blobs.mkdir()
    for shard in list(snapshot.glob("*.safetensors")):
        shard.rename(blobs / shard.name)
        shard.symlink_to(Path("../../blobs") / shard.name)
    assert open_sharded(snapshot).keys() == (FIRST | SECOND).keys()
    elsewhere = tmp_path / "elsewhere"
    blobs.rename(elsewhere)
    blobs.symlink_to(elsewhere)
    with pytest.raises(DamagedCheckpointError, match="outside its folder"):
        open_sharded(snapshot)


def test_fp8_may_lie_beside_bf16_but_not_bf16_beside_fp32(tmp_path: Path) -> None:
    write_shards(tmp_path, FIRST, {"layers.1.q.weight": torch.randn(4, 4).to(torch.float8_e4m3fn)})
    assert len(open_sharded(tmp_path)) == 3
    write_shards(tmp_path, FIRST, {"layers.1.q.weight": torch.randn(4, 4).bfloat16()})
    with pytest.raises(
        DamagedCheckpointError, match=r"holds layers\.1\.q\.weight in torch\.bfloat16.*different exports"
    ):
        open_sharded(tmp_path)
    # Within one file an exporter may have meant it.
    write_shards(tmp_path, FIRST | {"layers.1.q.weight": torch.randn(4, 4).bfloat16()})
    assert len(open_sharded(tmp_path)) == 3
