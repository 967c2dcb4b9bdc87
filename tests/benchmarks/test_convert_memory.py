from dataclasses import replace
from pathlib import Path

from benchmarks.convert_memory import measure
from lightning_modules.model.configuration import DecoderConfig


def test_a_conversion_takes_memory_for_a_tensor_and_not_for_all(tiny_config: DecoderConfig, tmp_path: Path) -> None:
    config = replace(
        tiny_config, hidden_size=512, num_hidden_layers=4, n_routed_experts=64, moe_intermediate_size=512, n_group=1,
        topk_group=1, num_nextn_predict_layers=0,
    )  # fmt: skip
    result = measure(config, "bf16", "huggingface", "keep", tmp_path)
    assert result["source_bytes"] > 300e6
    assert result["largest_tensor_bytes"] < 2e6
    assert result["peak_memory_bytes"] - result["memory_before_bytes"] < 0.5 * result["source_bytes"]
    assert result["target_disk_bytes"] < 0.01 * result["target_bytes"], "zeros stay holes"
