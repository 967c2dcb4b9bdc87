from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.model.decoder import Decoder
from lightning_modules.model.yarn import YarnConfig
from pipeline.checkpoints.layouts.deepseek_config import deepseek_config, differences, read_config
from pipeline.checkpoints.registry import detect_layout, open_checkpoint
from pipeline.checkpoints.stored_tensor import DamagedCheckpointError
from pipeline.plumbing.files import read_json, write_json

# Of inference/model.py, for one layer of experts with two experts on each of two ranks.
NAMES_OF_A_LAYER = {
    "attn_norm.weight",
    "attn.wq_a.weight",
    "attn.q_norm.weight",
    "attn.wq_b.weight",
    "attn.wkv_a.weight",
    "attn.kv_norm.weight",
    "attn.wkv_b.weight",
    "attn.wo.weight",
    "ffn_norm.weight",
    "ffn.gate.weight",
    "ffn.gate.bias",
    "ffn.shared_experts.w1.weight",
    "ffn.shared_experts.w2.weight",
    "ffn.shared_experts.w3.weight",
}


@pytest.fixture(scope="session")
def config(tiny_config: DecoderConfig) -> DecoderConfig:
    return replace(tiny_config, num_nextn_predict_layers=0, n_routed_experts=4, n_group=2)


@pytest.fixture
def trained(config: DecoderConfig, random_weights, save_training, tmp_path: Path) -> Path:
    return save_training(tmp_path / "trained.ckpt", config, random_weights(config))


@pytest.mark.parametrize("n_ranks", [1, 2, 4])
def test_files_are_shared_out_as_deepseek_does(
    trained: Path, config: DecoderConfig, convert_path, read_all, tmp_path: Path, n_ranks: int
) -> None:
    convert_path(trained, tmp_path / "ranks", "deepseek", n_model_parallel=n_ranks)
    assert detect_layout(tmp_path / "ranks") == "deepseek"
    published = read_all(trained)
    for rank in range(n_ranks):
        tensors = load_file(tmp_path / "ranks" / f"model{rank}-mp{n_ranks}.safetensors")
        experts = range(rank * 4 // n_ranks, (rank + 1) * 4 // n_ranks)
        names = {f"ffn.experts.{expert}.w{k}.weight" for expert in experts for k in (1, 2, 3)} | NAMES_OF_A_LAYER
        assert {n.removeprefix("layers.2.") for n in tensors if n.startswith("layers.2.")} == names
        assert {name for name in tensors if not name.startswith("layers.")} == {
            "embed.weight",
            "norm.weight",
            "head.weight",
        }
        expected = published["model.layers.0.self_attn.o_proj.weight"].chunk(n_ranks, dim=1)[rank]
        assert torch.equal(tensors["layers.0.attn.wo.weight"], expected)
        expected = published["model.layers.0.self_attn.kv_b_proj.weight"].chunk(n_ranks)[rank]
        assert torch.equal(tensors["layers.0.attn.wkv_b.weight"], expected)
        expected = published["model.layers.0.mlp.down_proj.weight"].chunk(n_ranks, dim=1)[rank]
        assert torch.equal(tensors["layers.0.ffn.w2.weight"], expected)
        expected = published["model.layers.1.mlp.gate.e_score_correction_bias"]
        assert torch.equal(tensors["layers.1.ffn.gate.bias"], expected)
        expected = published[f"model.layers.1.mlp.experts.{experts[0]}.up_proj.weight"]
        assert torch.equal(tensors[f"layers.1.ffn.experts.{experts[0]}.w3.weight"], expected)
    assert open_checkpoint(tmp_path / "ranks").config == config


def test_prediction_modules_have_no_place(build_decoder, export_decoder, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"1 prediction modules, which .* has no place for; set drop=\[mtp\]"):
        export_decoder(build_decoder(), tmp_path / "ranks", "deepseek")
    assert not list(tmp_path.glob("ranks*"))
    conversion = export_decoder(build_decoder(), tmp_path / "ranks", "deepseek", drop=("mtp",))
    assert "model.layers.3.eh_proj.weight" in conversion.dropped
    assert all(name.startswith("model.layers.3.") for name in conversion.dropped)


def test_fp8_keeps_bits_and_factors_over_ranks(random_weights, save_training, convert_path, read_all, tmp_path) -> None:
    config = DecoderConfig(
        **deepseek_shapes(hidden_size=256, intermediate_size=512, moe_intermediate_size=128, n_shared_experts=2)
    )
    trained = save_training(tmp_path / "trained.ckpt", config, random_weights(config))
    convert_path(trained, tmp_path / "fp8", "huggingface", dtype="fp8")
    convert_path(tmp_path / "fp8", tmp_path / "ranks", "deepseek", n_model_parallel=2)
    shard = load_file(tmp_path / "ranks" / "model1-mp2.safetensors")
    assert shard["layers.0.attn.wo.weight"].shape == (256, 128)
    assert shard["layers.0.attn.wo.scale"].shape == (2, 1)
    assert read_json(tmp_path / "ranks" / "config.json")["dtype"] == "fp8"
    expected = read_all(tmp_path / "fp8")
    found = read_all(tmp_path / "ranks")
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name].view(torch.uint8), tensor.view(torch.uint8)), name


def deepseek_shapes(**changes) -> dict:
    """An architecture whose ranks' shares end with whole blocks."""
    return {
        "vocab_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "q_lora_rank": 130,
        "kv_lora_rank": 72,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 128,
        "v_head_dim": 128,
        "first_k_dense_replace": 1,
        "n_routed_experts": 2,
        "num_experts_per_tok": 1,
        "n_group": 1,
        "topk_group": 1,
        "scoring_func": "sigmoid",
        "norm_topk_prob": True,
        "routed_scaling_factor": 1.0,
        "rope_theta": 10000.0,
        "rms_norm_eps": 1e-6,
        "max_position_embeddings": 256,
        "tie_word_embeddings": False,
        "initializer_range": 0.02,
        "num_nextn_predict_layers": 0,
    } | changes


@pytest.mark.parametrize(
    ("dtype", "n_ranks", "message"),
    [
        ("keep", 3, "4 experts cannot be shared out to 3 ranks"),
        ("fp8", 2, "2 ranks cannot share out in blocks of 128"),
    ],
)
def test_what_ranks_cannot_share_is_refused(
    trained: Path, convert_path, tmp_path: Path, dtype: str, n_ranks: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        convert_path(trained, tmp_path / "ranks", "deepseek", n_model_parallel=n_ranks, dtype=dtype)
    assert not list(tmp_path.glob("ranks*"))


def drop_shard(folder: Path) -> None:
    (folder / "model1-mp2.safetensors").unlink()


def mix_conversions(folder: Path) -> None:
    (folder / "model0-mp1.safetensors").write_bytes((folder / "model0-mp2.safetensors").read_bytes())


def mix_checkpoints(folder: Path) -> None:
    tensors = load_file(folder / "model1-mp2.safetensors")
    tensors["norm.weight"] += 1
    save_file(tensors, folder / "model1-mp2.safetensors")


def swap_ranks(folder: Path) -> None:
    tensors = load_file(folder / "model1-mp2.safetensors")
    tensors["layers.1.ffn.experts.0.w1.weight"] = tensors["layers.1.ffn.experts.2.w1.weight"].clone()
    save_file(tensors, folder / "model1-mp2.safetensors")


def contradict(folder: Path) -> None:
    write_json(folder / "config.json", read_json(folder / "config.json") | {"n_limited_groups": 1})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (drop_shard, r"holds the files of ranks \[0\] of 2"),
        (mix_conversions, "holds files of 1 and 2 ranks"),
        (mix_checkpoints, r"model1-mp2.safetensors: model\.norm\.weight is not what model0-mp2"),
        (swap_ranks, r"experts\.0\.gate_proj\.weight is in 2 files"),
        (contradict, "config.json says n_limited_groups is 1, but architecture.json says 2"),
    ],
)
def test_files_that_disagree_are_refused(trained: Path, convert_path, tmp_path: Path, damage, message: str) -> None:
    convert_path(trained, tmp_path / "ranks", "deepseek", n_model_parallel=2)
    damage(tmp_path / "ranks")
    with pytest.raises(DamagedCheckpointError, match=message):
        open_checkpoint(tmp_path / "ranks")


def test_a_folder_of_deepseeks_own_converter_is_read(
    trained: Path, config: DecoderConfig, convert_path, read_all, tmp_path: Path
) -> None:
    # It writes neither architecture.json nor expert loads.
    conversion = convert_path(trained, tmp_path / "ranks", "deepseek", drop=("expert_loads",))
    assert len(conversion.dropped) == 2
    (tmp_path / "ranks" / "architecture.json").unlink()
    source = open_checkpoint(tmp_path / "ranks")
    assert source.config == replace(config, initializer_range=0.02)
    assert len(source.initialised) == 2
    expected = read_all(trained)
    tensors = {name: tensor for name, tensor in read_all(source).items() if name not in source.initialised}
    assert all(torch.equal(tensor, expected[name]) for name, tensor in tensors.items())


def test_the_published_configuration_is_deepseeks(tmp_path: Path) -> None:
    # inference/configs/config_671B.json.
    values = {
        "vocab_size": 129280,
        "dim": 7168,
        "inter_dim": 18432,
        "moe_inter_dim": 2048,
        "n_layers": 61,
        "n_dense_layers": 3,
        "n_heads": 128,
        "n_routed_experts": 256,
        "n_shared_experts": 1,
        "n_activated_experts": 8,
        "n_expert_groups": 8,
        "n_limited_groups": 4,
        "route_scale": 2.5,
        "score_func": "sigmoid",
        "q_lora_rank": 1536,
        "kv_lora_rank": 512,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "dtype": "fp8",
    }
    write_json(tmp_path / "config.json", values)
    config = read_config(tmp_path)
    assert config.rope_scaling == YarnConfig(factor=40, original_max_position_embeddings=4096)
    assert (config.n_group, config.topk_group, config.num_experts_per_tok, config.norm_topk_prob) == (8, 4, 8, True)
    assert values.items() <= deepseek_config(config, "fp8").items()
    assert differences(config) == ()


def test_what_deepseeks_code_computes_otherwise_is_said(config: DecoderConfig) -> None:
    changed = replace(config, rms_norm_eps=1e-5, rope_interleave=False, norm_topk_prob=False)
    said = " ".join(differences(changed))
    assert all(name in said for name in ("rms_norm_eps is 1e-05", "rope_interleave", "norm_topk_prob is False"))
    assert "routers have a bias" in said


def test_the_joined_decoder_computes_what_its_source_does(
    trained: Path, config: DecoderConfig, random_weights, convert_path, tmp_path: Path
) -> None:
    convert_path(trained, tmp_path / "ranks", "deepseek", n_model_parallel=2)
    convert_path(tmp_path / "ranks", tmp_path / "back.ckpt", "lightning")
    state = torch.load(tmp_path / "back.ckpt", weights_only=True)["state_dict"]
    tokens = torch.randint(0, 40, (1, 12), generator=torch.Generator().manual_seed(0))
    assert torch.equal(logits(config, random_weights(config), tokens), logits(config, state, tokens))


def logits(config: DecoderConfig, weights: dict[str, Tensor], tokens: Tensor) -> Tensor:
    decoder = Decoder(config)
    decoder.load_state_dict({name.removeprefix("decoder."): tensor.float() for name, tensor in weights.items()})
    with torch.no_grad():
        return decoder.next_token_logits(tokens)[0]
