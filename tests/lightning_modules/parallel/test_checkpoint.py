"""One rank saves in the background, and opens what others have saved."""

import os
import pickle
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning as L  # noqa: N812
import pytest
import torch
import torch.distributed as dist
from torch.distributed.checkpoint import FileSystemWriter
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.distributed.tensor import DTensor

from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.model.decoder import Decoder
from lightning_modules.parallel.background_saves import CheckpointError
from lightning_modules.parallel.checkpoint import CheckpointWriter, model_state, optimizer_state
from lightning_modules.parallel.checkpoint_folder import is_sharded
from lightning_modules.parallel.checkpoint_io import CheckpointFiles
from lightning_modules.parallel.checkpoint_loading import load_checkpoint, load_weights
from lightning_modules.parallel.configuration import ParallelConfig
from lightning_modules.parallel.mesh import build_mesh
from lightning_modules.parallel.sharding import parallelise
from tests.conftest import TINY
from tests.ranks import run_on_ranks


class Model(L.LightningModule):
    """A decoder whose weights are all the same number."""

    def __init__(self, value: float, config: DecoderConfig = TINY) -> None:
        super().__init__()
        self.decoder = Decoder(config)
        self.fill(value)

    @torch.no_grad()
    def fill(self, value: float) -> None:
        for tensor in self.decoder.state_dict().values():
            tensor.fill_(value)

    def values(self) -> set[float]:
        wholes = [p.full_tensor() if isinstance(p, DTensor) else p for p in self.parameters()]
        return {float(number) for tensor in wholes for number in tensor.detach().unique()}


def sharded(value: float) -> tuple[Model, torch.optim.Optimizer]:
    model = Model(value)
    parallelise(model.decoder, build_mesh(ParallelConfig(), "cpu", 1), MixedPrecisionPolicy())
    optimizer = torch.optim.AdamW(model.parameters(), foreach=False)
    return model, optimizer


def contents(model: Model, optimizer: torch.optim.Optimizer, step: int) -> dict[str, Any]:
    return {
        "state_dict": model_state(model),
        "optimizer_states": [optimizer_state(model, optimizer)],
        "global_step": step,
        "hyper_parameters": {"decoder": asdict(TINY)},
    }


def save_in_every_way(rank: int, folder: Path) -> None:
    """What has to be seen from within: that a save is a copy, that its error is not lost, and what it leaves."""
    dist.init_process_group("gloo")
    model, optimizer = sharded(1.0)
    writer = CheckpointWriter()
    may_write = threading.Event()
    write_data = FileSystemWriter.write_data

    def held(self: FileSystemWriter, *arguments: Any) -> Any:
        assert may_write.wait(60)
        return write_data(self, *arguments)

    FileSystemWriter.write_data = held  # type: ignore[method-assign]
    writer.save(contents(model, optimizer, 1), folder / "best.ckpt")
    model.fill(2.0)
    assert not (folder / "best.ckpt").exists()
    may_write.set()
    writer.wait()
    assert os.listdir(folder) == ["best.ckpt"]
    opened, its_optimizer = sharded(0.0)
    assert load_checkpoint(folder / "best.ckpt", opened, [its_optimizer])["global_step"] == 1
    assert opened.values() == {1.0}

    def full(self: FileSystemWriter, *arguments: Any) -> Any:
        raise OSError("No space left on device")

    FileSystemWriter.write_data = full  # type: ignore[method-assign]
    writer.save(contents(model, optimizer, 2), folder / "best.ckpt")
    with pytest.raises(CheckpointError, match=r"best.ckpt could not be written: rank 0: OSError: No space left"):
        writer.wait()
    load_checkpoint(folder / "best.ckpt", opened, [its_optimizer])
    assert opened.values() == {1.0}

    FileSystemWriter.write_data = write_data  # type: ignore[method-assign]
    writer.save(contents(model, optimizer, 3), folder / "best.ckpt")
    writer.wait()
    writer.wait()
    assert os.listdir(folder) == ["best.ckpt"]
    load_weights(folder / "best.ckpt", opened.decoder)
    assert opened.values() == {2.0}
    dist.destroy_process_group()


def save_often(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo")
    writer = CheckpointWriter()
    for step in range(50):
        path = folder / f"{step}.ckpt"
        writer.save({"state_dict": {"weight": torch.full((4,), float(step))}}, path)
        writer.wait()
        assert is_sharded(path)
    dist.barrier()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sharded checkpoint of twos, at the end of all that a rank can do with it."""
    path = tmp_path_factory.mktemp("checkpoints")
    run_on_ranks(save_in_every_way, 1, path)
    return path / "best.ckpt"


def test_saves_are_copies_errors_are_raised_and_good_ones_stay(folder: Path) -> None:
    assert is_sharded(folder)


def test_ranks_that_begin_a_save_at_once_do_not_meet(tmp_path: Path) -> None:
    run_on_ranks(save_often, 2, tmp_path)


def test_weights_are_loaded_without_ranks(folder: Path) -> None:
    model = Model(0.0)
    load_weights(folder, model.decoder)
    assert model.values() == {2.0}


def test_weights_of_another_model_are_refused(folder: Path, tmp_path: Path) -> None:
    other = Decoder(DecoderConfig(**asdict(TINY) | {"num_hidden_layers": 4}))
    with pytest.raises(ValueError, match=r"best.ckpt does not hold what this training needs.*layers\.3"):
        load_weights(folder, other)
    files = CheckpointFiles()
    files.save_checkpoint({"state_dict": Model(1.0).state_dict()}, tmp_path / "one.ckpt")
    files.saves.wait()
    with pytest.raises(
        ValueError, match=r"one.ckpt holds another model: decoder.layers.3.* are missing, none too many"
    ):
        load_weights(tmp_path / "one.ckpt", other)
    with pytest.raises(ValueError, match="neither a file, nor a folder that holds .metadata and meta.pt"):
        load_weights(tmp_path, other)


class Malicious:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("owned",)


def test_an_index_that_would_run_code_is_refused(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (bad := tmp_path / "bad").mkdir()
    (bad / "meta.pt").write_bytes((folder / "meta.pt").read_bytes())
    for content in (pickle.dumps(Malicious()), b"", (folder / ".metadata").read_bytes()[:-100]):
        (bad / ".metadata").write_bytes(content)
        with pytest.raises(ValueError, match=r"bad/.metadata is not the index of a sharded checkpoint"):
            load_weights(bad, Model(0.0).decoder)
    assert not (tmp_path / "owned").exists()


def test_a_single_file_is_replaced_only_by_a_whole_one(tmp_path: Path) -> None:
    files = CheckpointFiles()
    files.save_checkpoint({"global_step": 1}, tmp_path / "best.ckpt")
    files.save_checkpoint({"global_step": 2, "bad": lambda: None}, tmp_path / "best.ckpt")
    with pytest.raises(CheckpointError, match="best.ckpt could not be written: .*local object"):
        files.saves.wait()
    assert files.load_checkpoint(tmp_path / "best.ckpt") == {"global_step": 1}
    files.save_checkpoint({"global_step": 3}, tmp_path / "best.ckpt")
    assert files.load_checkpoint(tmp_path / "best.ckpt") == {"global_step": 3}
    assert os.listdir(tmp_path) == ["best.ckpt"]
