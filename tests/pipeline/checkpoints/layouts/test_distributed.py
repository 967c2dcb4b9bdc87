from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp

from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.model.decoder import Decoder
from lightning_modules.parallel.checkpoint_loading import gather_checkpoint, load_weights, read_description
from pipeline.checkpoints.registry import detect_layout, open_checkpoint


@pytest.fixture
def weights(tiny_config: DecoderConfig, random_weights) -> dict[str, torch.Tensor]:
    return random_weights(tiny_config, torch.float32)


@pytest.fixture
def folder(tiny_config: DecoderConfig, weights, save_training, convert_path, tmp_path: Path) -> Path:
    trained = save_training(tmp_path / "trained.ckpt", tiny_config, weights)
    # So small that every expert's matrix is a chunk of its own.
    convert_path(trained, tmp_path / "folder", "distributed", shard_bytes=5000)
    return tmp_path / "folder"


def test_a_training_of_many_ranks_can_start_from_it(tiny_config: DecoderConfig, weights, folder: Path) -> None:
    assert detect_layout(folder) == "distributed"
    assert read_description(folder)["global_step"] == 7
    decoder = Decoder(tiny_config)
    load_weights(folder, decoder)
    for name, tensor in decoder.state_dict().items():
        assert torch.equal(tensor, weights[name]), name


@pytest.mark.filterwarnings("ignore:.*torch.distributed is disabled.*")
def test_torch_reads_it_by_itself(weights, folder: Path) -> None:
    wanted = {"state_dict": {f"decoder.{name}": torch.empty_like(tensor) for name, tensor in weights.items()}}
    dcp.load(wanted, checkpoint_id=folder, no_dist=True)
    for name, tensor in weights.items():
        assert torch.equal(wanted["state_dict"][f"decoder.{name}"], tensor), name


def test_stacks_lie_in_several_files(weights, folder: Path) -> None:
    assert len(list(folder.glob("*.distcp"))) > len(weights)
    gathered = gather_checkpoint(folder)["state_dict"]
    stack = "layers.1.mlp.experts.gate_up_proj"
    assert torch.equal(gathered[f"decoder.{stack}"], weights[stack])


@pytest.mark.filterwarnings("ignore:.*torch.distributed is disabled.*")
def test_what_torch_saves_is_read(tiny_config: DecoderConfig, weights, save_training, read_all, tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    state = {"state_dict": {f"decoder.{name}": tensor for name, tensor in weights.items()}}
    state |= {"optimizer_0": {"state": {"x": torch.zeros(3)}}}
    dcp.save(state, checkpoint_id=folder, no_dist=True)
    trained = save_training(tmp_path / "trained.ckpt", tiny_config, weights)
    meta = torch.load(trained, weights_only=True)
    del meta["state_dict"]
    torch.save(meta, folder / "meta.pt")
    source = open_checkpoint(folder)
    assert source.left_behind == ("optimizer_0",)
    expected = read_all(trained)
    for name, tensor in read_all(source).items():
        assert torch.equal(tensor, expected[name]), name
