"""Architectures and objectives that cannot be: refused in one sentence that names the key and the remedy."""

from dataclasses import asdict, replace
from typing import Any

import pytest

from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.model.yarn import YarnConfig

YARN = {"factor": 40.0, "original_max_position_embeddings": 4096}
SEGMENTS = {"num_expert_segments": 2}
HIERARCHY = SEGMENTS | {"expert_segment_routing": "hierarchical"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_experts_per_tok": 5}, "num_experts_per_tok is 5, but the 2 kept groups hold 4 experts; lower it"),
        ({"num_experts_per_tok": 0}, "num_experts_per_tok is 0"),
        ({"n_group": 3}, r"n_routed_experts \(8\) does not divide into model.n_group \(3\) groups; make it a multiple"),
        ({"topk_group": 5}, "topk_group is 5; it must lie between 1 and n_group"),
        ({"qk_rope_head_dim": 5}, "qk_rope_head_dim is 5; .* make it even"),
        ({"qk_rope_head_dim": 0, "qk_nope_head_dim": 7}, "qk_nope_head_dim is 7; .* make it even"),
        ({"qk_rope_head_dim": -2}, "neither must be negative"),
        ({"hidden_size": 20}, "hidden_size is 20; .* multiple of 8"),
        ({"moe_intermediate_size": 20}, "moe_intermediate_size is 20; .* multiple of 8"),
        ({"vocab_size": 0}, "vocab_size is 0; it must be at least 1"),
        ({"q_lora_rank": 0}, "q_lora_rank is 0; set a rank of at least 1, or null"),
        ({"first_k_dense_replace": 4}, "first_k_dense_replace is 4; it must lie between 0 and num_hidden_layers"),
        ({"scoring_func": "tanh"}, "scoring_func is 'tanh'; choose sigmoid or softmax"),
        ({"routed_scaling_factor": -1.0}, "routed_scaling_factor is -1.0; it must be positive"),
        ({"num_nextn_predict_layers": -1}, "num_nextn_predict_layers and .* must not be negative"),
        ({"rope_scaling": YARN | {"factor": 0.5}}, "rope_scaling.factor is 0.5; it must be at least 1"),
        (
            {"rope_scaling": YARN | {"beta_fast": 0.5}},
            "beta_slow is 1.0 and beta_fast 0.5; .* beta_slow not the larger",
        ),
        ({"rope_scaling": YARN | {"mscale": -0.1}}, "mscale and mscale_all_dim must not be negative"),
        ({"rope_scaling": YARN | {"attention_factor": 0.0}}, "attention_factor is 0.0; it must be positive, or null"),
        ({"rope_scaling": YARN | {"original_max_position_embeddings": 0}}, "set it to the context"),
        ({"rope_scaling": YARN, "max_position_embeddings": 200000}, "reaches 163840 tokens; lower it or raise"),
        ({"num_expert_segments": 0}, "num_expert_segments is 0; it must be at least 1"),
        ({"num_expert_segments": 3}, r"moe_intermediate_size \(16\) does not divide into .* make it a multiple"),
        ({"num_expert_segments": 4}, r"segments of the sizes \[4, 4, 4, 4\]; .* multiple of 8"),
        (SEGMENTS | {"expert_segment_sizes": (8, 16)}, r"expert_segment_sizes is \[8, 16\]; .* sum to .* \(16\)"),
        (SEGMENTS | {"expert_segment_sizes": (16,)}, r"as many sizes as model.num_expert_segments \(2\)"),
        (SEGMENTS | {"expert_segment_sizes": (16, 0)}, "make each a positive multiple of 8"),
        (SEGMENTS | {"expert_segment_routing": "nested"}, "choose independent or hierarchical"),
        (
            SEGMENTS | {"num_segments_per_expert": 1},
            "only hierarchical routing chooses segments within experts; set it",
        ),
        (HIERARCHY | {"num_segments_per_expert": 3}, "num_segments_per_expert is 3; it must lie between 1 and"),
    ],
)
def test_an_impossible_architecture_is_refused(
    tiny_config: DecoderConfig, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as refusal:
        replace(tiny_config, **changes)
    sentence = str(refusal.value)
    assert sentence.startswith("model.")
    assert "\n" not in sentence


def test_an_architecture_of_plain_values_is_the_same(tiny_config: DecoderConfig) -> None:
    config = replace(tiny_config, rope_scaling=YarnConfig(40, 4096), num_expert_segments=2, expert_segment_sizes=(8, 8))
    assert DecoderConfig(**asdict(config)) == config
    assert DecoderConfig(**(asdict(config) | {"expert_segment_sizes": [8, 8]})) == config
    older = {
        name: value for name, value in asdict(tiny_config).items() if "segment" not in name and "rope_s" not in name
    }
    assert DecoderConfig(**older) == tiny_config
