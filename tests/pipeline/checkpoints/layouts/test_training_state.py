"""The running mean of the weights, which a training may keep beside them."""

from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor

from lightning_modules.model.configuration import DecoderConfig
from pipeline.checkpoints.architecture_match import OpenOptions
from pipeline.checkpoints.conversion import ConversionOptions, convert
from pipeline.checkpoints.registry import open_checkpoint
from pipeline.checkpoints.stored_tensor import DamagedCheckpointError

AVERAGED = OpenOptions(weights="ema")


def mean_of(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """As `ParameterAverage` keeps it: FP32, of parameters alone, and of a tied head once."""
    left_out = ("e_score_correction_bias", "expert_loads", "lm_head.weight")
    return {name: weight.float() * 0.5 for name, weight in weights.items() if not name.endswith(left_out)}


@pytest.fixture
def save(tiny_config: DecoderConfig, random_weights, save_training, tmp_path: Path):
    """A training checkpoint of either kind with a running mean; returns its path and the weights."""

    def write(layout: str, change=lambda average: None) -> tuple[Path, dict[str, Tensor]]:
        config = DecoderConfig(**{**tiny_config.__dict__, "tie_word_embeddings": True})
        weights = random_weights(config)
        average = mean_of(weights)
        change(average)
        path = save_training(tmp_path / "trained.ckpt", config, weights, parameter_average=average)
        if layout == "lightning":
            return path, weights
        state = {f"decoder.{name}": tensor for name, tensor in weights.items()}
        folder = tmp_path / "sharded"
        dcp.save({"state_dict": state, "parameter_average": average}, checkpoint_id=folder, no_dist=True)
        values = torch.load(path, weights_only=True)
        torch.save({name: values[name] for name in ("hyper_parameters", "global_step")}, folder / "meta.pt")
        return folder, weights

    return write


@pytest.mark.parametrize("layout", ["lightning", "distributed"])
def test_the_mean_is_exported_where_it_is_asked_for(save, tmp_path: Path, layout: str) -> None:
    path, weights = save(layout)
    source = open_checkpoint(path, options=AVERAGED)
    assert (source.layout, source.weights) == (layout, "ema")
    convert(source, tmp_path / "export", "huggingface", ConversionOptions(dtype="float32"))
    tensors = {name: stored.read() for name, stored in open_checkpoint(tmp_path / "export").tensors.items()}
    for name in ("embed_tokens.weight", "layers.0.self_attn.o_proj.weight", "layers.2.mlp.gate.weight"):
        assert torch.equal(tensors[f"model.{name}"], weights[name].float() * 0.5)
    assert torch.equal(tensors["lm_head.weight"], tensors["model.embed_tokens.weight"])
    experts = weights["layers.1.mlp.experts.down_proj"].float() * 0.5
    assert torch.equal(tensors["model.layers.1.mlp.experts.3.down_proj.weight"], experts[3])
    # Routers' biases are no parameters: they are what they became.
    name = "layers.1.mlp.gate.e_score_correction_bias"
    assert torch.equal(tensors[f"model.{name}"], weights[name])
    trained = open_checkpoint(path)
    assert torch.equal(trained.tensors["model.norm.weight"].read(), weights["norm.weight"])


@pytest.mark.parametrize("layout", ["lightning", "distributed"])
def test_a_mean_that_is_not_whole_is_refused(save, layout: str) -> None:
    path, _ = save(layout, lambda average: average.pop("layers.1.self_attn.o_proj.weight"))
    with pytest.raises(DamagedCheckpointError, match=r"but not of decoder\.layers\.1\.self_attn\.o_proj\.weight"):
        open_checkpoint(path, options=AVERAGED)


def test_where_there_is_none_it_is_said(save, tmp_path: Path) -> None:
    path, _ = save("lightning", lambda average: average.clear())
    message = r"holds no running mean of its weights: .* trainer\.ema_decay do; take the trained ones"
    with pytest.raises(ValueError, match=message):
        open_checkpoint(path, options=AVERAGED)
    convert(open_checkpoint(path), tmp_path / "export", "huggingface", ConversionOptions())
    with pytest.raises(ValueError, match=message):
        open_checkpoint(tmp_path / "export", options=AVERAGED)
