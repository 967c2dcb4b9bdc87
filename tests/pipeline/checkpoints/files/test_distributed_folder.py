"""Sharded checkpoints, read without their planner; `malformed/folders.py` has those that are refused."""

import pickle
import re
from pathlib import Path, PurePosixPath

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)

from pipeline.checkpoints.files.distributed_folder import open_distributed, verify_distributed
from pipeline.checkpoints.stored_tensor import DamagedCheckpointError
from tests.pipeline.checkpoints.malformed.corpus import flip

STACK = torch.arange(6 * 4 * 5, dtype=torch.float32).view(6, 4, 5)


def save_chunks(folder: Path, tensor: Tensor, chunks: list[tuple[tuple[int, ...], tuple[int, ...]]]) -> Path:
    """Write a tensor in chunks of (offsets, sizes), one file each, as ranks do."""
    folder.mkdir()
    described, places = [], {}
    for number, (offsets, sizes) in enumerate(chunks):
        part = tensor[tuple(slice(start, start + size) for start, size in zip(offsets, sizes, strict=True))]
        torch.save(part.clone(), folder / f"__{number}_0.distcp")
        described.append(ChunkStorageMetadata(torch.Size(offsets), torch.Size(sizes)))
        n_bytes = (folder / f"__{number}_0.distcp").stat().st_size
        places[MetadataIndex("x", torch.Size(offsets), number)] = _StorageInfo(f"__{number}_0.distcp", 0, n_bytes)
    tensors = {"x": TensorStorageMetadata(TensorProperties(tensor.dtype), tensor.shape, described)}
    (folder / ".metadata").write_bytes(pickle.dumps(Metadata(tensors, None, places)))
    torch.save({"global_step": 3}, folder / "meta.pt")
    return folder


def test_what_torch_saves_is_read(tmp_path: Path) -> None:
    state = {
        "state_dict": {"a": torch.randn(5, 3), "half": torch.randn(4).bfloat16(), "scalar": torch.tensor(2.0)},
        "optimizer_0": {"lr": 0.1, "step": torch.tensor(3)},
    }
    dcp.save(state, checkpoint_id=tmp_path / "x", no_dist=True)
    torch.save({"global_step": 3}, tmp_path / "x" / "meta.pt")
    found, values = open_distributed(tmp_path / "x")
    assert values == {"global_step": 3}
    assert found.keys() == {"state_dict.a", "state_dict.half", "state_dict.scalar", "optimizer_0.step"}
    for name, tensor in state["state_dict"].items():
        assert torch.equal(found[f"state_dict.{name}"].read(), tensor)
    verify_distributed(tmp_path / "x")


@pytest.mark.parametrize("module", [b"pathlib", b"pathlib._local"])
def test_an_index_that_holds_its_path_is_read_whichever_python_wrote_it(tmp_path: Path, module: bytes) -> None:
    folder = save_chunks(tmp_path / "x", STACK, [((0, 0, 0), (6, 4, 5))])
    index = pickle.loads((folder / ".metadata").read_bytes())
    index.storage_meta = StorageMeta(PurePosixPath("/where/it/was"))
    # Up to protocol 3 classes are named in lines of text.
    written, n_paths = re.subn(
        rb"cpathlib(\._local)?\nPurePosixPath\n", b"c" + module + b"\nPosixPath\n", pickle.dumps(index, protocol=3)
    )
    assert n_paths == 1
    (folder / ".metadata").write_bytes(written)
    found, _ = open_distributed(folder)
    assert torch.equal(found["x"].read(), STACK)


@pytest.mark.parametrize(
    "chunks",
    [
        [((0, 0, 0), (6, 4, 5))],
        [((0, 0, 0), (2, 4, 5)), ((2, 0, 0), (2, 4, 5)), ((4, 0, 0), (2, 4, 5))],
        [((4, 0, 0), (2, 4, 5)), ((0, 0, 0), (4, 4, 5))],
        [((0, 0, 0), (3, 2, 5)), ((0, 2, 0), (3, 2, 5)), ((3, 0, 0), (3, 4, 2)), ((3, 0, 2), (3, 4, 3))],
    ],
)
def test_chunks_are_put_together(tmp_path: Path, chunks: list[tuple[tuple[int, ...], tuple[int, ...]]]) -> None:
    found, _ = open_distributed(save_chunks(tmp_path / "x", STACK, chunks))
    assert torch.equal(found["x"].read(), STACK)
    assert found["x"].read_rows is not None
    for start in range(6):
        for stop in range(start + 1, 7):
            assert torch.equal(found["x"].read_rows(start, stop), STACK[start:stop])


def test_rows_are_read_without_the_chunks_of_others(tmp_path: Path) -> None:
    path = save_chunks(tmp_path / "x", STACK, [((0, 0, 0), (3, 4, 5)), ((3, 0, 0), (3, 4, 5))])
    found, _ = open_distributed(path)
    (path / "__1_0.distcp").unlink()
    assert found["x"].read_rows is not None
    assert torch.equal(found["x"].read_rows(0, 3), STACK[:3])
    with pytest.raises(FileNotFoundError):
        found["x"].read()


def test_flipped_bits_of_numbers_are_found_when_it_is_verified(tmp_path: Path) -> None:
    path = save_chunks(tmp_path / "x", STACK, [((0, 0, 0), (6, 4, 5))])
    file = path / "__0_0.distcp"
    flip(file, file.read_bytes().index(STACK.numpy().tobytes()) + 100)
    open_distributed(path)
    with pytest.raises(DamagedCheckpointError, match=r"__0_0\.distcp: x: .*data/0 does not have the CRC-32"):
        verify_distributed(path)
