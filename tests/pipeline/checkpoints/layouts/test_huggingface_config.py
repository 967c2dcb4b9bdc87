from dataclasses import replace
from pathlib import Path

import pytest

from lightning_modules.model.configuration import DecoderConfig
from pipeline.checkpoints.layouts.huggingface_config import DEFAULTS, describe, huggingface_config, read_config
from pipeline.checkpoints.stored_tensor import DamagedCheckpointError
from pipeline.plumbing.files import write_json


def test_whole_heads_that_rotate_cannot_be_published(tiny_config: DecoderConfig) -> None:
    whole = replace(tiny_config, qk_nope_head_dim=8, qk_rope_head_dim=0)
    with pytest.raises(ValueError, match=r"model\.qk_rope_head_dim is 0.*train with decoupled"):
        huggingface_config(whole, {}, "float32")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "llama"}, "model_type is 'llama', another architecture; read are deepseek_v3 and kimi_k2"),
        ({"attention_bias": True}, "attention_bias is True, not False"),
        ({"topk_method": "greedy"}, "topk_method is 'greedy'"),
        ({"hidden_size": None}, "hidden_size is 'None', which no decoder has"),
        ({"hidden_size": "32"}, "hidden_size is '32', which no decoder has"),
        ({"rope_scaling": "yarn"}, "rope_scaling is 'yarn', no set of parameters"),
    ],
)
def test_another_kind_of_model_is_refused(
    tiny_config: DecoderConfig, tmp_path: Path, changes: dict, message: str
) -> None:
    write_json(tmp_path / "config.json", huggingface_config(tiny_config, {}, "float32") | changes)
    with pytest.raises(DamagedCheckpointError, match=message):
        read_config(tmp_path)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("deepseek_v2", "a relative of DeepSeek-V3; the decoder would need routers by softmax without a bias"),
        ("deepseek_v32", "would need sparse attention"),
        ("kimi_k25", r"language_model\.\* alone are kimi_k2, which is read"),
        ("glm4_moe", "would need grouped-query attention"),
        (["deepseek_v3"], "another architecture"),
    ],
)
def test_relatives_are_refused_by_what_they_would_need(
    tiny_config: DecoderConfig, tmp_path: Path, kind: object, message: str
) -> None:
    write_json(tmp_path / "config.json", huggingface_config(tiny_config, {}, "float32") | {"model_type": kind})
    with pytest.raises(DamagedCheckpointError, match=message):
        read_config(tmp_path)


def test_another_name_of_the_architecture_is_accepted_and_said(tiny_config: DecoderConfig, tmp_path: Path) -> None:
    values = huggingface_config(tiny_config, {}, "float32")
    write_json(
        tmp_path / "config.json", values | {"model_type": "kimi_k2", "ep_size": 1, "auto_map": {"AutoModel": "x.Y"}}
    )
    described = describe(tmp_path)
    assert described.config == tiny_config
    assert described.notes == (
        f"{tmp_path / 'config.json'} calls the architecture kimi_k2; it is that of deepseek_v3.",
    )
    del values["model_type"]
    write_json(tmp_path / "config.json", values)
    assert describe(tmp_path).notes == ()


def test_what_no_shape_tells_is_what_deepseeks_code_takes(tiny_config: DecoderConfig, tmp_path: Path) -> None:
    values = huggingface_config(tiny_config, {}, "float32")
    for name in DEFAULTS:
        del values[name]
    values["n_shared_experts"] = None
    write_json(tmp_path / "config.json", values | {"n_routed_experts": 256})
    described = describe(tmp_path)
    assert {name: getattr(described.config, name) for name in DEFAULTS} == DEFAULTS
    assert described.config.n_shared_experts == 0
    assert "silent about n_group (8), topk_group (4)" in described.notes[0]


@pytest.mark.parametrize(
    ("quantisation", "message"),
    [
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, "quantised by 'awq', 4 bits"),
        ({"quant_method": "gptq", "bits": 8}, "quantised by 'gptq', 8 bits"),
        ({"quant_method": "compressed-tensors", "format": "pack-quantized"}, "quantised by 'compressed-tensors'"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "quantised by 'bitsandbytes', 4 bits"),
        ({"quant_method": "fp8", "weight_block_size": [64, 64]}, r"'fp8', FP8 \(e4m3\) in blocks of \[64, 64\]"),
        ({"quant_method": "fp8"}, r"'fp8', FP8 \(e4m3\) per tensor or channel"),
        ({"quant_method": "fp8", "fmt": "e5m2", "weight_block_size": [128, 128]}, r"FP8 \(e5m2\)"),
        ({"quant_method": "blockwise_int8", "weight_block_size": [128, 128]}, "quantised by 'blockwise_int8'"),
    ],
)
def test_formats_that_are_merely_others_are_named(
    tiny_config: DecoderConfig, tmp_path: Path, quantisation: dict, message: str
) -> None:
    values = huggingface_config(tiny_config, {}, "float32")
    write_json(tmp_path / "config.json", values | {"quantization_config": quantisation})
    with pytest.raises(DamagedCheckpointError, match=message + r".*The checkpoint may be whole.* or dequantise it"):
        read_config(tmp_path)


def test_a_field_that_is_absent_is_named(tiny_config: DecoderConfig, tmp_path: Path) -> None:
    described = huggingface_config(tiny_config, {}, "float32")
    del described["kv_lora_rank"]
    write_json(tmp_path / "config.json", described)
    with pytest.raises(DamagedCheckpointError, match=r"config\.json lacks kv_lora_rank"):
        read_config(tmp_path)
