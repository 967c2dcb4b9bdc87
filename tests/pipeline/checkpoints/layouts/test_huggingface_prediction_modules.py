"""Prediction modules in the published layout: where others look for them, grafted, dropped, and how many."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.checkpoints.architecture_match import OpenOptions
from pipeline.checkpoints.loading import load_decoder
from pipeline.checkpoints.registry import open_checkpoint
from pipeline.plumbing.files import read_json, write_json

INDEX = "model.safetensors.index.json"
EMBEDDING_AHEAD = "model.layers.3.embed_tokens.weight"
# What vLLM (models/deepseek_mtp.py) and SGLang (models/deepseek_nextn.py) look for, of a prediction module with 8
# experts and compressed queries at layer 3.
MTP_NAMES = {
    "model.layers.3.embed_tokens.weight",
    "model.layers.3.enorm.weight",
    "model.layers.3.hnorm.weight",
    "model.layers.3.eh_proj.weight",
    "model.layers.3.shared_head.norm.weight",
    "model.layers.3.shared_head.head.weight",
    "model.layers.3.input_layernorm.weight",
    "model.layers.3.post_attention_layernorm.weight",
    "model.layers.3.self_attn.q_a_proj.weight",
    "model.layers.3.self_attn.q_a_layernorm.weight",
    "model.layers.3.self_attn.q_b_proj.weight",
    "model.layers.3.self_attn.kv_a_proj_with_mqa.weight",
    "model.layers.3.self_attn.kv_a_layernorm.weight",
    "model.layers.3.self_attn.kv_b_proj.weight",
    "model.layers.3.self_attn.o_proj.weight",
    "model.layers.3.mlp.gate.weight",
    "model.layers.3.mlp.gate.e_score_correction_bias",
    "model.layers.3.mlp.shared_experts.gate_proj.weight",
    "model.layers.3.mlp.shared_experts.up_proj.weight",
    "model.layers.3.mlp.shared_experts.down_proj.weight",
    *(
        f"model.layers.3.mlp.experts.{expert}.{projection}_proj.weight"
        for expert in range(8)
        for projection in ("gate", "up", "down")
    ),
}


def test_prediction_modules_lie_where_inference_engines_look_for_them(
    build_decoder, export_decoder, tmp_path: Path
) -> None:
    decoder = build_decoder()
    export_decoder(decoder, tmp_path / "export")
    weight_map = read_json(tmp_path / "export" / INDEX)["weight_map"]
    assert {name for name in weight_map if name.startswith("model.layers.3.")} == MTP_NAMES
    tensors = {name: load_file(tmp_path / "export" / weight_map[name])[name] for name in MTP_NAMES}
    assert torch.equal(tensors["model.layers.3.embed_tokens.weight"], decoder.embed_tokens.weight)
    assert torch.equal(tensors["model.layers.3.shared_head.head.weight"], decoder.lm_head.weight)
    export_decoder(decoder, tmp_path / "fp8", dtype="fp8")
    quantised = {name for name in read_json(tmp_path / "fp8" / INDEX)["weight_map"] if name.endswith("_scale_inv")}
    # Both read eh_proj, the head, the embedding and the router without factors.
    expected = {f"{name}_scale_inv" for name in MTP_NAMES if "_proj" in name and "eh_proj" not in name}
    assert {name for name in quantised if name.startswith("model.layers.3.")} == expected


def test_modules_grafted_from_another_training_are_kept_or_dropped(
    build_decoder, export_decoder, convert_path, read_all, tmp_path: Path
) -> None:
    export_decoder(build_decoder(), tmp_path / "export")
    weight_map = read_json(tmp_path / "export" / INDEX)["weight_map"]
    shard = tmp_path / "export" / weight_map[EMBEDDING_AHEAD]
    tensors = load_file(shard)
    tensors[EMBEDDING_AHEAD][0, 0] += 1
    save_file(tensors, shard)
    (tmp_path / "export" / "checksums.json").unlink()
    kept = open_checkpoint(tmp_path / "export")
    assert list(kept.separate) == [EMBEDDING_AHEAD]
    convert_path(tmp_path / "export", tmp_path / "kept", "huggingface")
    again = open_checkpoint(tmp_path / "kept")
    assert torch.equal(again.separate[EMBEDDING_AHEAD].read(), tensors[EMBEDDING_AHEAD])
    with pytest.raises(ValueError, match=r"set drop=\[mtp\] to leave them out, or layout=huggingface to keep them"):
        convert_path(tmp_path / "export", tmp_path / "trained", "lightning")
    assert load_decoder(tmp_path / "export").config.num_nextn_predict_layers == 0
    conversion = convert_path(tmp_path / "export", tmp_path / "dropped", "lightning", drop=("mtp",))
    assert EMBEDDING_AHEAD in conversion.dropped
    assert open_checkpoint(tmp_path / "dropped").config.num_nextn_predict_layers == 0


def test_what_is_dropped_may_be_absent_or_damaged(build_decoder, export_decoder, tmp_path: Path) -> None:
    export_decoder(build_decoder(), tmp_path / "export", shard_bytes=6000)
    weight_map = read_json(tmp_path / "export" / INDEX)["weight_map"]
    ahead = [file for name, file in weight_map.items() if name.startswith("model.layers.3.")]
    of_them_alone = set(ahead) - {file for name, file in weight_map.items() if not name.startswith("model.layers.3.")}
    assert len(of_them_alone) > 1
    for file in of_them_alone:
        (tmp_path / "export" / file).unlink()
    with pytest.raises(FileNotFoundError, match=min(of_them_alone)):
        open_checkpoint(tmp_path / "export")
    source = open_checkpoint(tmp_path / "export", options=OpenOptions(drop=("mtp",)))
    assert source.config.num_nextn_predict_layers == 0
    assert {name for name in source.dropped if "expert_loads" not in name} == MTP_NAMES
    assert not source.missing


@pytest.mark.parametrize("told", [1, None, 2])
def test_there_are_as_many_prediction_modules_as_the_files_hold(
    build_decoder, export_decoder, tmp_path: Path, told: int | None
) -> None:
    export_decoder(build_decoder(), tmp_path / "export")
    values = read_json(tmp_path / "export" / "config.json") | {"num_nextn_predict_layers": told}
    write_json(tmp_path / "export" / "config.json", values)
    source = open_checkpoint(tmp_path / "export")
    assert source.config.num_nextn_predict_layers == 1
    assert bool(source.notes) == (told != 1)
