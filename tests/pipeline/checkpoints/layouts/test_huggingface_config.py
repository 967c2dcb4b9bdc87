from dataclasses import replace
from pathlib import Path

import pytest

from lightning_modules.model.configuration import DecoderConfig
from pipeline.checkpoints.layouts.huggingface_config import huggingface_config, read_config
from pipeline.checkpoints.stored_tensor import DamagedCheckpointError
from pipeline.plumbing.files import write_json


def test_whole_heads_that_rotate_cannot_be_published(tiny_config: DecoderConfig) -> None:
    whole = replace(tiny_config, qk_nope_head_dim=8, qk_rope_head_dim=0)
    with pytest.raises(ValueError, match=r"model\.qk_rope_head_dim is 0.*train with decoupled"):
        huggingface_config(whole, {}, "float32")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "llama"}, "model_type is 'llama', not 'deepseek_v3'"),
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


def test_a_field_that_is_absent_is_named(tiny_config: DecoderConfig, tmp_path: Path) -> None:
    described = huggingface_config(tiny_config, {}, "float32")
    del described["kv_lora_rank"]
    write_json(tmp_path / "config.json", described)
    with pytest.raises(DamagedCheckpointError, match=r"config\.json lacks kv_lora_rank"):
        read_config(tmp_path)
