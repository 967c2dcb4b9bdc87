"""Checkpoints of any layout, loaded into a model."""

import logging
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning as L  # noqa: N812
import pytest
import torch
from torch import Tensor, nn

from lightning_modules.model.block_scaled import matrix_of
from lightning_modules.model.decoder import Decoder
from pipeline.checkpoints.architecture_match import OpenOptions
from pipeline.checkpoints.conversion import ConversionOptions, convert
from pipeline.checkpoints.loading import load_checkpoint_compatible, load_decoder
from pipeline.checkpoints.registry import open_checkpoint

TOKENS = torch.randint(0, 40, (2, 20), generator=torch.Generator().manual_seed(0))
BuildDecoder = Callable[..., Decoder]


class Wrapped(L.LightningModule):
    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder


def logits(decoder: Decoder) -> Tensor:
    with torch.no_grad():
        return decoder(TOKENS).logits


def fresh(like: Decoder) -> Decoder:
    decoder = Decoder(like.config).eval()
    decoder.initialize_weights(seed=99)
    return decoder


def legacy_weights(decoder: Decoder, prefix: str = "") -> dict[str, Tensor]:
    """As they were saved in the past: the output projection under its old name, and no expert loads."""
    return {
        prefix + name.replace("o_proj", "out_proj"): tensor.clone()
        for name, tensor in decoder.state_dict().items()
        if "expert_loads" not in name
    }


def save_training(decoder: Decoder, path: Path, **changes: Any) -> Path:
    weights = {f"decoder.{name}": tensor for name, tensor in decoder.state_dict().items()}
    values = {"state_dict": weights, "hyper_parameters": {"decoder": asdict(decoder.config)}, "global_step": 7}
    torch.save(values | {"optimizer_states": []} | changes, path)
    return path


@pytest.fixture(scope="module")
def trained(build_decoder: BuildDecoder) -> Decoder:
    return build_decoder()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("wrapper", "prefix"),
    [
        ((), ""),
        (("model",), "module."),
        (("state_dict",), "_orig_mod.module.model."),
        (("model_state_dict",), "module.decoder."),
        (("model", "state_dict"), "model.decoder._orig_mod."),
    ],
)
def test_the_output_projection_of_the_past_is_loaded(
    trained: Decoder, tmp_path: Path, wrapper: tuple[str, ...], prefix: str, zipped: bool
) -> None:
    content: dict[str, Any] = legacy_weights(trained, prefix)
    for key in reversed(wrapper):
        content = {key: content, "epoch": 3, "step": 12}
    torch.save(content, tmp_path / "old.pt", _use_new_zipfile_serialization=zipped)
    decoder = fresh(trained)
    assert not torch.equal(logits(decoder), logits(trained))
    checkpoint, missing, unexpected = load_checkpoint_compatible(tmp_path / "old.pt", decoder)
    assert torch.equal(logits(decoder), logits(trained))
    assert ("layers.0.self_attn.out_proj.weight", "model.layers.0.self_attn.o_proj.weight") in checkpoint["renamed"]
    assert len(checkpoint["renamed"]) == 4
    assert missing == [name for name in trained.state_dict() if name.endswith("expert_loads")]
    assert unexpected == []
    assert checkpoint["layout"] == "legacy"
    assert checkpoint["step"] == (12 if wrapper else None)
    assert checkpoint["left_behind"] == (["epoch"] if wrapper else [])
    assert all(not router.expert_loads.any() for router in decoder.routers())


def test_without_the_rename_output_projections_are_missing(trained: Decoder, tmp_path: Path) -> None:
    torch.save(legacy_weights(trained), tmp_path / "old.pt")
    decoder = fresh(trained)
    before = {name: tensor.clone() for name, tensor in decoder.state_dict().items()}
    with pytest.raises(ValueError, match=r"old.pt: output projections missing in layers 0-3"):
        load_checkpoint_compatible(tmp_path / "old.pt", decoder, strict=False, rename_legacy=False)
    assert all(torch.equal(before[name], tensor) for name, tensor in decoder.state_dict().items())


def test_what_may_be_missing_by_name_is_random_and_said_to_be(
    trained: Decoder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.save(legacy_weights(trained), tmp_path / "old.pt")
    decoder = fresh(trained)
    with caplog.at_level(logging.INFO):
        _, missing, unexpected = load_checkpoint_compatible(
            tmp_path / "old.pt", decoder, strict=False, rename_legacy=False, allow_missing=["*.o_proj.weight"]
        )
    assert "output projections missing in layers 0-3; they are random now" in caplog.text
    assert "expert loads" in caplog.text
    assert "layers.2.self_attn.o_proj.weight" in missing
    assert "layers.2.self_attn.out_proj.weight" in unexpected
    projection = decoder.layers[2].self_attn.o_proj.weight
    assert float(projection.detach().std()) == pytest.approx(decoder.config.initializer_range, rel=0.2)
    assert torch.equal(decoder.layers[2].self_attn.kv_b_proj.weight, trained.layers[2].self_attn.kv_b_proj.weight)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("layers.1.input_layernorm.weight", "norms missing in layer 1"),
        ("layers.2.mlp.gate.e_score_correction_bias", "routing biases missing in layer 2"),
        ("layers.1.mlp.experts.down_proj", "experts missing in layer 1"),
        ("mtp.0.eh_proj.weight", "eh_proj.weight missing"),
    ],
)
def test_a_missing_weight_is_an_error_even_if_not_strict(
    trained: Decoder, tmp_path: Path, name: str, words: str
) -> None:
    weights = trained.state_dict()
    del weights[name]
    torch.save(weights, tmp_path / "weights.pt")
    with pytest.raises(ValueError, match=words):
        load_checkpoint_compatible(tmp_path / "weights.pt", fresh(trained), strict=False)


def test_strict_decides_about_what_is_too_much(trained: Decoder, tmp_path: Path) -> None:
    torch.save(trained.state_dict() | {"layers.0.adapter.weight": torch.ones(3)}, tmp_path / "weights.pt")
    decoder = fresh(trained)
    with pytest.raises(ValueError, match=r"such as layers\.0\.adapter\.weight; strict=False loads the rest"):
        load_checkpoint_compatible(tmp_path / "weights.pt", decoder)
    _, missing, unexpected = load_checkpoint_compatible(tmp_path / "weights.pt", decoder, strict=False)
    assert (missing, unexpected) == ([], ["layers.0.adapter.weight"])
    assert torch.equal(logits(decoder), logits(trained))


@pytest.mark.parametrize("layout", ["huggingface", "distributed", "lightning"])
@pytest.mark.parametrize("changes", [{}, {"num_expert_segments": 2}, {"tie_word_embeddings": True}])
def test_every_layout_is_loaded_into_a_lightning_module(
    build_decoder: BuildDecoder, tmp_path: Path, layout: str, changes: dict[str, Any]
) -> None:
    trained = build_decoder(**changes)
    source = open_checkpoint(save_training(trained, tmp_path / "checkpoint.ckpt"))
    convert(source, tmp_path / "target", layout, ConversionOptions())
    module = Wrapped(fresh(trained))
    checkpoint, missing, unexpected = load_checkpoint_compatible(tmp_path / "target", module)
    assert torch.equal(logits(module.decoder), logits(trained))
    assert (checkpoint["layout"], missing, unexpected) == (layout, [], [])
    loaded = load_decoder(tmp_path / "target")
    assert torch.equal(logits(loaded), logits(trained))
    assert not loaded.training
    if changes.get("tie_word_embeddings"):
        assert loaded.lm_head.weight is loaded.embed_tokens.weight


def test_fp8_is_loaded_as_bf16(trained: Decoder, tmp_path: Path) -> None:
    source = open_checkpoint(save_training(trained, tmp_path / "checkpoint.ckpt"))
    convert(source, tmp_path / "target", "huggingface", ConversionOptions(dtype="fp8"))
    loaded = load_decoder(tmp_path / "target")
    assert loaded.layers[0].self_attn.o_proj.weight.dtype == torch.bfloat16
    error = loaded.layers[0].self_attn.o_proj.weight.float() - trained.layers[0].self_attn.o_proj.weight
    assert 0 < error.norm() < 0.05 * trained.layers[0].self_attn.o_proj.weight.norm()


def test_fp8_may_stay(build_decoder: BuildDecoder, tmp_path: Path) -> None:
    """The numbers are those of the same checkpoint read as BF16, in half the memory."""
    decoder = build_decoder(moe_intermediate_size=128, qk_nope_head_dim=16, qk_rope_head_dim=16, v_head_dim=32)
    source = open_checkpoint(save_training(decoder, tmp_path / "checkpoint.ckpt"))
    convert(source, tmp_path / "target", "huggingface", ConversionOptions(dtype="fp8"))
    expected, kept = load_decoder(tmp_path / "target"), load_decoder(tmp_path / "target", keep_fp8=True)
    experts = kept.layers[1].mlp.experts
    assert matrix_of(experts, "gate_up_proj").values.dtype == torch.float8_e4m3fn
    assert torch.equal(experts.gate_up_proj, expected.layers[1].mlp.experts.gate_up_proj)
    tokens = torch.randint(0, decoder.config.vocab_size, (2, 9))
    assert torch.equal(kept.next_token_logits(tokens)[0], expected.next_token_logits(tokens)[0])


def test_another_model_is_refused_naming_what_differs(
    trained: Decoder, build_decoder: BuildDecoder, tmp_path: Path
) -> None:
    path = save_training(trained, tmp_path / "checkpoint.ckpt")
    other = build_decoder(rope_theta=500.0, num_experts_per_tok=1)
    with pytest.raises(ValueError, match=r"num_experts_per_tok is 2 there, and 1 here; rope_theta differ as well"):
        load_checkpoint_compatible(path, other)


def test_prediction_modules_may_stay_out_on_either_side(
    trained: Decoder, build_decoder: BuildDecoder, tmp_path: Path
) -> None:
    path = save_training(trained, tmp_path / "checkpoint.ckpt")
    without = build_decoder(num_nextn_predict_layers=0)
    with pytest.raises(ValueError, match="no place for, such as model.layers.3"):
        load_checkpoint_compatible(path, without)
    _, _, unexpected = load_checkpoint_compatible(path, without, strict=False)
    assert "model.layers.3.eh_proj.weight" in unexpected
    save_training(without, path)
    with pytest.raises(ValueError, match="missing in layer 3"):
        load_checkpoint_compatible(path, fresh(trained))
    decoder = fresh(trained)
    _, missing, _ = load_checkpoint_compatible(path, decoder, allow_missing=["model.layers.3.*"])
    assert "mtp.0.eh_proj.weight" in missing
    assert torch.equal(decoder.mtp[0].eh_proj.weight, fresh(trained).mtp[0].eh_proj.weight)
    assert torch.equal(decoder.layers[2].self_attn.o_proj.weight, trained.layers[2].self_attn.o_proj.weight)


def test_numbers_that_are_none_are_refused_and_change_nothing(trained: Decoder, tmp_path: Path) -> None:
    weights = {name: tensor.clone() for name, tensor in trained.state_dict().items()}
    weights["layers.2.mlp.experts.down_proj"][3, 0, 0] = float("nan")
    torch.save(weights, tmp_path / "weights.pt")
    decoder = fresh(trained)
    before = logits(decoder)
    with pytest.raises(ValueError, match=r"model\.layers\.2\.mlp\.experts\.3\.down_proj\.weight holds 1 numbers"):
        load_checkpoint_compatible(tmp_path / "weights.pt", decoder)
    assert torch.equal(logits(decoder), before)


def test_what_cannot_be_filled_is_refused(trained: Decoder, tmp_path: Path) -> None:
    path = save_training(trained, tmp_path / "checkpoint.ckpt")
    with pytest.raises(ValueError, match="Linear is no Decoder"):
        load_checkpoint_compatible(path, nn.Linear(2, 2))
    with torch.device("meta"):
        empty = Decoder(trained.config)
    with pytest.raises(ValueError, match="on the meta device"):
        load_checkpoint_compatible(path, empty)


def test_a_legacy_file_needs_to_be_told_its_architecture(trained: Decoder, tmp_path: Path) -> None:
    torch.save(legacy_weights(trained), tmp_path / "old.pt")
    with pytest.raises(ValueError, match=r"old.pt holds weights, and does not say of which architecture"):
        open_checkpoint(tmp_path / "old.pt")
    assert open_checkpoint(tmp_path / "old.pt", options=OpenOptions(trained.config)).layout == "legacy"
