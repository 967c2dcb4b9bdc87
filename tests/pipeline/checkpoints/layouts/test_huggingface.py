"""The export, held against the implementation in transformers."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.model.decoder import Decoder
from lightning_modules.model.yarn import YarnConfig
from pipeline.checkpoints.layouts.huggingface_config import read_config
from pipeline.checkpoints.loading import load_checkpoint_compatible
from pipeline.checkpoints.names import published_parts
from pipeline.checkpoints.registry import detect_layout, open_checkpoint
from pipeline.checkpoints.stored_tensor import DamagedCheckpointError
from pipeline.plumbing.files import read_json, write_json

transformers = pytest.importorskip("transformers")
INDEX = "model.safetensors.index.json"
YARN = YarnConfig(factor=40, original_max_position_embeddings=4, beta_fast=16, mscale=0.707)


def load_in_transformers(folder: Path, n_layers: int, **options):
    """Load an export, and make sure that nothing but prediction modules was left over."""
    model, info = transformers.DeepseekV3ForCausalLM.from_pretrained(folder, output_loading_info=True, **options)
    assert not info["missing_keys"]
    assert not info["mismatched_keys"]
    # transformers looks for prediction modules at layer 61 alone, whatever config.json says.
    assert all(int(name.split(".")[2]) >= n_layers for name in info["unexpected_keys"])
    return model.eval()


def own_logits(decoder: Decoder, tokens: Tensor) -> Tensor:
    with torch.no_grad():
        return decoder.next_token_logits(tokens)[0]


def their_logits(model, tokens: Tensor) -> Tensor:
    with torch.no_grad():
        return model(tokens).logits


def relative_difference(left: Tensor, right: Tensor) -> float:
    return float((left - right).abs().max() / right.abs().max())


@pytest.fixture(scope="session")
def tokens() -> Tensor:
    return torch.randint(0, 40, (2, 30), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"q_lora_rank": None, "n_shared_experts": 2, "num_nextn_predict_layers": 0},
        {"rope_scaling": YARN, "max_position_embeddings": 160, "rope_interleave": False, "qk_rope_head_dim": 8},
        {"num_expert_segments": 2},
    ],
)
def test_transformers_computes_the_same_logits(
    build_decoder, export_decoder, tokens: Tensor, tmp_path: Path, changes: dict
) -> None:
    decoder = build_decoder(**changes)
    export_decoder(decoder, tmp_path / "export")
    model = load_in_transformers(tmp_path / "export", 3)
    assert relative_difference(own_logits(decoder, tokens), their_logits(model, tokens)) < 5e-6


def test_an_export_of_the_published_depth_leaves_no_key_over(build_decoder, export_decoder, tmp_path: Path) -> None:
    decoder = build_decoder(num_hidden_layers=61, n_routed_experts=4, n_group=2, topk_group=1)
    export_decoder(decoder, tmp_path / "export")
    _, info = transformers.DeepseekV3ForCausalLM.from_pretrained(tmp_path / "export", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]


def test_transformers_reads_an_fp8_export(build_decoder, export_decoder, tokens: Tensor, tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    # Without a GPU it dequantises to BF16; sides that 128 divides, or shorter ones, since it takes no partial blocks.
    decoder = build_decoder(intermediate_size=256, hidden_size=128)
    export_decoder(decoder, tmp_path / "fp8", dtype="fp8")
    model = load_in_transformers(tmp_path / "fp8", 3).float()
    dequantised = dequantised_decoder(decoder.config, tmp_path / "fp8", torch.bfloat16)
    assert relative_difference(own_logits(dequantised, tokens), their_logits(model, tokens)) < 5e-6


def test_transformers_computes_the_same_of_a_dequantised_export(
    build_decoder, export_decoder, convert_path, tokens: Tensor, tmp_path: Path
) -> None:
    # Every kind of projection has a partial block at an edge: no side is a multiple of 128.
    decoder = build_decoder(hidden_size=136, intermediate_size=200, moe_intermediate_size=136, q_lora_rank=130)
    export_decoder(decoder, tmp_path / "fp8", dtype="fp8")
    convert_path(tmp_path / "fp8", tmp_path / "bf16", "huggingface", dtype="bfloat16")
    model = load_in_transformers(tmp_path / "bf16", 3, dtype=torch.float32)
    dequantised = dequantised_decoder(decoder.config, tmp_path / "fp8", torch.bfloat16)
    ours = own_logits(dequantised, tokens)
    assert relative_difference(ours, their_logits(model, tokens)) < 5e-6
    assert relative_difference(ours, own_logits(decoder, tokens)) > 1e-4, "quantising changed nothing"


def dequantised_decoder(config: DecoderConfig, folder: Path, dtype: torch.dtype) -> Decoder:
    """The decoder that an FP8 export means, by the published rule: number times factor, block by block."""
    tensors: dict[str, Tensor] = {}
    for file in folder.glob("*.safetensors"):
        tensors |= load_file(file)
    for name in [name for name in tensors if name.endswith("_scale_inv")]:
        weight = name.removesuffix("_scale_inv")
        numbers, factors = tensors[weight].float(), tensors.pop(name)
        spread = factors.repeat_interleave(128, 0).repeat_interleave(128, 1)[: numbers.shape[0], : numbers.shape[1]]
        tensors[weight] = numbers * spread
    decoder = Decoder(config)
    with torch.no_grad():
        for name, part in published_parts(config).items():
            own = decoder.state_dict()[part.own]
            target = own if part.expert is None else own[part.expert, part.start : part.start + part.shape[0]]
            target.copy_(tensors[name].to(dtype))
            if name.endswith("e_score_correction_bias"):
                target.copy_(tensors[name])
    return decoder.eval()


def test_what_is_written_reads_back_bit_for_bit(build_decoder, export_decoder, tmp_path: Path) -> None:
    decoder = build_decoder(num_nextn_predict_layers=2)
    conversion = export_decoder(decoder, tmp_path / "export")
    renamed = ("decoder.mtp.1.block.self_attn.o_proj.weight", "model.layers.4.self_attn.o_proj.weight")
    assert renamed in conversion.renamed
    assert len(list((tmp_path / "export").glob("model-*.safetensors"))) > 1
    assert detect_layout(tmp_path / "export") == "huggingface"
    source = open_checkpoint(tmp_path / "export")
    assert source.config == decoder.config
    weights = decoder.state_dict()
    for name, part in published_parts(decoder.config).items():
        expected = weights[part.own]
        if part.expert is not None:
            expected = expected[part.expert, part.start : part.start + part.shape[0]]
        assert torch.equal(source.tensors[name].read(), expected), name


def test_positions_read_back_however_config_json_tells_them(build_decoder, export_decoder, tmp_path: Path) -> None:
    decoder = build_decoder(rope_scaling=YARN, max_position_embeddings=160, rope_interleave=False)
    folder = tmp_path / "export"
    export_decoder(decoder, folder)
    assert read_config(folder) == decoder.config
    described = read_json(folder / "config.json")
    # As transformers 5 writes it, and as DeepSeek published it.
    newer = {name: value for name, value in described.items() if name not in ("rope_scaling", "rope_theta")}
    older = {name: value for name, value in described.items() if name != "rope_parameters"}
    for values in (newer, older):
        write_json(folder / "config.json", values)
        assert read_config(folder) == decoder.config
    write_json(folder / "config.json", older | {"rope_scaling": {"type": "longrope"}})
    with pytest.raises(DamagedCheckpointError, match="scales positions by 'longrope'; only 'yarn' is known"):
        read_config(folder)
    assert transformers.AutoConfig.for_model(**newer).rope_parameters["factor"] == 40


@pytest.mark.parametrize("n_modules", [0, 1])
def test_what_transformers_saves_is_read(build_decoder, export_decoder, tmp_path: Path, n_modules: int) -> None:
    decoder = build_decoder(num_nextn_predict_layers=n_modules)
    export_decoder(decoder, tmp_path / "export")
    transformers.DeepseekV3ForCausalLM.from_pretrained(tmp_path / "export").save_pretrained(tmp_path / "saved")
    # It writes none of the modules, and always that there is one.
    assert read_json(tmp_path / "saved" / "config.json")["num_nextn_predict_layers"] == n_modules
    source = open_checkpoint(tmp_path / "saved")
    assert source.config == replace(decoder.config, num_nextn_predict_layers=0)
    assert bool(source.notes) == bool(n_modules)
    assert {name.rpartition(".")[2] for name in source.initialised} == {"expert_loads"}
    expected = open_checkpoint(tmp_path / "export").tensors
    for name, stored in source.tensors.items():
        if name not in source.initialised:
            assert torch.equal(stored.read(), expected[name].read()), name


def test_a_tied_head_may_be_absent(build_decoder, export_decoder, read_all, tmp_path: Path) -> None:
    decoder = build_decoder(tie_word_embeddings=True, num_nextn_predict_layers=0)
    export_decoder(decoder, tmp_path / "export", shard_bytes=2**30)
    (shard,) = (tmp_path / "export").glob("model-*.safetensors")
    tensors = load_file(shard)
    del tensors["lm_head.weight"]
    save_file(tensors, tmp_path / "export" / "model.safetensors")
    (tmp_path / "export" / INDEX).unlink()
    assert torch.equal(read_all(tmp_path / "export")["lm_head.weight"], decoder.embed_tokens.weight)


def test_segments_are_exported_as_the_experts_they_are(build_decoder, export_decoder, tmp_path: Path) -> None:
    decoder = build_decoder(num_expert_segments=2)
    export_decoder(decoder, tmp_path / "export")
    assert read_config(tmp_path / "export") == decoder.config.with_segments_as_experts()
    assert not any("segment" in name for name in read_json(tmp_path / "export" / "config.json"))
    segment = open_checkpoint(tmp_path / "export").tensors["model.layers.1.mlp.experts.3.down_proj.weight"]
    assert torch.equal(segment.read(), decoder.layers[1].mlp.experts.down_proj[3])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"expert_segment_routing": "hierarchical"},
            "'hierarchical', which the published layout cannot express; train",
        ),
        (
            {"moe_intermediate_size": 24, "expert_segment_sizes": (8, 16)},
            "all experts of the published layout have one",
        ),
    ],
)
def test_segments_that_the_layout_cannot_express_are_refused(
    build_decoder, export_decoder, tmp_path: Path, changes: dict, message: str
) -> None:
    decoder = build_decoder(num_expert_segments=2, **changes)
    with pytest.raises(ValueError, match=message):
        export_decoder(decoder, tmp_path / "export")
    assert [path.name for path in tmp_path.iterdir()] == ["trained.ckpt"]


@pytest.mark.parametrize(
    ("changes", "status"), [({"n_group": 8, "topk_group": 5}, 1), ({"n_group": 4, "topk_group": 2}, 4)]
)
def test_groups_of_one_expert_are_written_as_one(
    build_decoder, export_decoder, tokens: Tensor, tmp_path: Path, changes: dict, status: int
) -> None:
    decoder = build_decoder(num_experts_per_tok=3, **changes)
    conversion = export_decoder(decoder, tmp_path / "export")
    assert read_config(tmp_path / "export").n_group == status
    assert bool(conversion.notes) == (status == 1)
    model = load_in_transformers(tmp_path / "export", 3)
    assert relative_difference(own_logits(decoder, tokens), their_logits(model, tokens)) < 5e-6
    load_checkpoint_compatible(tmp_path / "export", build_decoder(num_experts_per_tok=3, **changes))


def test_a_single_expert_cannot_be_published(build_decoder, export_decoder, tmp_path: Path) -> None:
    decoder = build_decoder(n_routed_experts=1, n_group=1, topk_group=1, num_experts_per_tok=1)
    with pytest.raises(ValueError, match=r"model\.n_routed_experts is 1, .* train with 2 experts or more"):
        export_decoder(decoder, tmp_path / "export")


@pytest.mark.parametrize("kind", ["absent", "another shape"])
def test_fp8_without_its_factors_is_refused(build_decoder, export_decoder, tmp_path: Path, kind: str) -> None:
    export_decoder(build_decoder(), tmp_path / "export", dtype="fp8", shard_bytes=2**30)
    (shard,) = (tmp_path / "export").glob("model-*.safetensors")
    tensors = load_file(shard)
    name = "model.layers.0.self_attn.o_proj.weight_scale_inv"
    tensors[name] = torch.ones(2, 1)
    if kind == "absent":
        del tensors[name]
    save_file(tensors, tmp_path / "export" / "model.safetensors")
    (tmp_path / "export" / INDEX).unlink()
    with pytest.raises(DamagedCheckpointError, match=r"layers\.0\.self_attn\.o_proj\.weight"):
        open_checkpoint(tmp_path / "export")


def test_a_router_bias_lost_on_disk_is_refused(build_decoder, export_decoder, tmp_path: Path) -> None:
    # transformers only warns, and loads a router of zeros.
    export_decoder(build_decoder(), tmp_path / "export", shard_bytes=2**30)
    (shard,) = (tmp_path / "export").glob("model-*.safetensors")
    tensors = load_file(shard)
    del tensors["model.layers.2.mlp.gate.e_score_correction_bias"]
    save_file(tensors, tmp_path / "export" / "model.safetensors")
    (tmp_path / "export" / INDEX).unlink()
    with pytest.raises(DamagedCheckpointError, match=r"layers\.2\.mlp\.gate\.e_score_correction_bias"):
        open_checkpoint(tmp_path / "export")


def test_expert_loads_travel_beside_the_published_layout(build_decoder, export_decoder, tmp_path: Path) -> None:
    decoder = build_decoder()
    decoder.routers()[0].expert_loads.uniform_()
    export_decoder(decoder, tmp_path / "export")
    loads = load_file(tmp_path / "export" / "expert_loads.safetensors")
    assert torch.equal(loads["model.layers.1.mlp.gate.expert_loads"], decoder.routers()[0].expert_loads)


def test_scores_that_transformers_does_not_know_are_said(build_decoder, export_decoder, tmp_path: Path) -> None:
    decoder = build_decoder()
    softmax = Decoder(replace(decoder.config, scoring_func="softmax"))
    softmax.load_state_dict(decoder.state_dict())
    assert not export_decoder(decoder, tmp_path / "sigmoid").notes
    assert "scores experts by sigmoid" in export_decoder(softmax, tmp_path / "softmax").notes[0]
