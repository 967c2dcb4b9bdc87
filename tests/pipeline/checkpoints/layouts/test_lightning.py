from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.model.decoder import Decoder
from lightning_modules.parallel.checkpoint_loading import load_weights, read_description
from pipeline.checkpoints.registry import detect_layout, open_checkpoint
from pipeline.checkpoints.stored_tensor import DamagedCheckpointError


def test_a_training_can_start_from_what_is_written(
    tiny_config: DecoderConfig, random_weights, save_training, convert_path, tmp_path: Path
) -> None:
    weights = random_weights(tiny_config, torch.float32)
    trained = save_training(tmp_path / "trained.ckpt", tiny_config, weights)
    convert_path(trained, tmp_path / "export", "huggingface")
    convert_path(tmp_path / "export", tmp_path / "back.ckpt", "lightning")
    description = read_description(tmp_path / "back.ckpt")
    assert DecoderConfig(**description["hyper_parameters"]["decoder"]) == tiny_config
    decoder = Decoder(tiny_config)
    load_weights(tmp_path / "back.ckpt", decoder)
    for name, tensor in decoder.state_dict().items():
        assert torch.equal(tensor, weights[name]), name


def test_what_no_conversion_carries_over_is_said(
    tiny_config: DecoderConfig, random_weights, save_training, tmp_path: Path
) -> None:
    weights = random_weights(tiny_config)
    others = {"optimizer_states": [{"state": {}}], "callbacks": {}, "parameter_average": {"x": torch.zeros(2)}}
    source = open_checkpoint(save_training(tmp_path / "trained.ckpt", tiny_config, weights, **others))
    assert source.layout == "lightning"
    assert source.step == 7
    assert source.left_behind == ("callbacks", "optimizer_states", "parameter_average")


def test_fp8_has_no_place_in_a_training_checkpoint(build_decoder, export_decoder, convert_path, tmp_path: Path) -> None:
    export_decoder(build_decoder(), tmp_path / "fp8", dtype="fp8")
    with pytest.raises(ValueError, match="FP8 weights, which a training checkpoint has no place for; set dtype to bf"):
        convert_path(tmp_path / "fp8", tmp_path / "back.ckpt", "lightning")
    assert not list(tmp_path.glob("back*"))


def test_another_model_than_it_says_is_refused(
    tiny_config: DecoderConfig, random_weights, save_training, tmp_path: Path
) -> None:
    weights = random_weights(tiny_config)
    weights["layers.1.mlp.experts.down_proj"] = weights["layers.1.mlp.experts.down_proj"][:4]
    path = save_training(tmp_path / "trained.ckpt", tiny_config, weights)
    with pytest.raises(DamagedCheckpointError, match=r"layers\.1\.mlp\.experts\.down_proj has the shape \[4, 32, 16\]"):
        open_checkpoint(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"num_hidden_layers": 10**9}, "describes"), ({"hidden_size": 8 * 10**17}, "hidden_size is '80.*no decoder has")],
)
def test_an_absurd_architecture_is_refused_at_once(
    tiny_config: DecoderConfig, random_weights, tmp_path: Path, changes: dict, message: str
) -> None:
    content = {
        "state_dict": {f"decoder.{name}": tensor for name, tensor in random_weights(tiny_config).items()},
        "hyper_parameters": {"decoder": asdict(tiny_config) | changes},
        "global_step": 1,
    }
    torch.save(content, tmp_path / "x.ckpt")
    with pytest.raises(DamagedCheckpointError, match=message):
        open_checkpoint(tmp_path / "x.ckpt")


def test_a_file_of_weights_alone_is_not_taken_for_a_training(tiny_config, random_weights, tmp_path: Path) -> None:
    torch.save({"state_dict": random_weights(tiny_config)}, tmp_path / "weights.pt")
    assert detect_layout(tmp_path / "weights.pt") == "legacy"
