"""The export, held against the implementation in transformers."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lightning_modules.model.configuration import YarnConfig
from lightning_modules.model.decoder import Decoder
from pipeline.checkpoints.huggingface import from_published, load_decoder, read_config, read_tensors, write_huggingface
from pipeline.files import read_json, write_json

transformers = pytest.importorskip("transformers")
SPECIAL = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


def export(decoder: Decoder, folder: Path, shard_bytes: int = 20_000) -> list[tuple[str, str]]:
    folder.mkdir()
    return write_huggingface(folder, decoder.config, decoder.state_dict(), SPECIAL, shard_bytes)


YARN = YarnConfig(factor=40, original_max_position_embeddings=4, beta_fast=16, mscale=0.707)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"q_lora_rank": None, "n_shared_experts": 2, "num_nextn_predict_layers": 0},
        {"rope_scaling": YARN, "max_position_embeddings": 160, "rope_interleave": False, "qk_rope_head_dim": 8},
        {"num_expert_segments": 2},
    ],
)
def test_transformers_computes_the_same_logits(build_decoder, tmp_path: Path, changes: dict) -> None:
    decoder = build_decoder(**changes)
    export(decoder, tmp_path / "export")
    model, info = transformers.DeepseekV3ForCausalLM.from_pretrained(tmp_path / "export", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["mismatched_keys"]
    tokens = torch.randint(0, 40, (2, 30), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        theirs = model.eval()(tokens).logits
        ours, _ = decoder.next_token_logits(tokens)
    assert float((ours - theirs).abs().max() / theirs.abs().max()) < 5e-6


def test_what_is_written_reads_back_bit_for_bit(build_decoder, tmp_path: Path) -> None:
    decoder = build_decoder(num_nextn_predict_layers=2)
    renamed = export(decoder, tmp_path / "export")
    assert ("mtp.1.block.self_attn.o_proj.weight", "model.layers.4.self_attn.o_proj.weight") in renamed
    assert len(list((tmp_path / "export").glob("model-*.safetensors"))) > 1
    loaded = load_decoder(tmp_path / "export")
    assert loaded.config == decoder.config
    weights = loaded.state_dict()
    assert weights.keys() == decoder.state_dict().keys()
    for name, tensor in decoder.state_dict().items():
        assert torch.equal(weights[name], tensor), name


def test_positions_read_back_however_config_json_tells_them(build_decoder, tmp_path: Path) -> None:
    decoder = build_decoder(rope_scaling=YARN, max_position_embeddings=160, rope_interleave=False)
    folder = tmp_path / "export"
    export(decoder, folder)
    assert read_config(folder) == decoder.config
    described = read_json(folder / "config.json")
    # As transformers 5 writes it, and as DeepSeek published it.
    newer = {name: value for name, value in described.items() if name not in ("rope_scaling", "rope_theta")}
    older = {name: value for name, value in described.items() if name != "rope_parameters"}
    for values in (newer, older):
        write_json(folder / "config.json", values)
        assert read_config(folder) == decoder.config
    write_json(folder / "config.json", older | {"rope_scaling": {"type": "longrope"}})
    with pytest.raises(ValueError, match="scales positions by 'longrope'; only 'yarn' is known"):
        read_config(folder)
    assert transformers.AutoConfig.for_model(**newer).rope_parameters["factor"] == 40


def test_segments_are_exported_as_the_experts_they_are(build_decoder, tmp_path: Path) -> None:
    decoder = build_decoder(num_expert_segments=2)
    export(decoder, tmp_path / "export")
    config = read_config(tmp_path / "export")
    assert config == decoder.config.with_segments_as_experts()
    assert not any("segment" in name for name in read_json(tmp_path / "export" / "config.json"))
    weights = from_published(read_tensors(tmp_path / "export"), decoder.config, decoder.state_dict())
    for name, tensor in decoder.state_dict().items():
        assert torch.equal(weights[name], tensor), name


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
    build_decoder, tmp_path: Path, changes: dict, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        export(build_decoder(num_expert_segments=2, **changes), tmp_path / "export")
    assert list((tmp_path / "export").iterdir()) == []


def test_a_damaged_export_is_refused(build_decoder, tmp_path: Path) -> None:
    decoder = build_decoder()
    folder = tmp_path / "export"
    export(decoder, folder)
    index = read_json(folder / "model.safetensors.index.json")
    first = folder / "model-00001-of-{:05d}.safetensors".format(len(set(index["weight_map"].values())))
    content = first.read_bytes()
    first.write_bytes(content[:-10])
    with pytest.raises(ValueError, match="model-00001.*cannot be read"):
        read_tensors(folder)
    first.write_bytes(content)
    tensors = read_tensors(folder)
    del tensors["model.layers.1.self_attn.o_proj.weight"]
    with pytest.raises(ValueError, match="1 tensors are missing.*layers.1.self_attn.o_proj"):
        from_published(tensors, decoder.config, decoder.state_dict())
    write_json(folder / "model.safetensors.index.json", {"weight_map": {"x": "../outside.safetensors"}})
    with pytest.raises(ValueError, match="not a file of its folder"):
        read_tensors(folder)
    write_json(folder / "config.json", {"model_type": "llama"})
    with pytest.raises(ValueError, match="model_type is 'llama'"):
        read_config(folder)


def test_expert_loads_travel_beside_the_published_layout(build_decoder, tmp_path: Path) -> None:
    decoder = build_decoder()
    decoder.routers()[0].expert_loads.uniform_()
    export(decoder, tmp_path / "export")
    loads = load_file(tmp_path / "export" / "expert_loads.safetensors")
    assert torch.equal(loads["model.layers.1.mlp.gate.expert_loads"], decoder.routers()[0].expert_loads)
