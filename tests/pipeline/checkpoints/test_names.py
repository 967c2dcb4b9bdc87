from dataclasses import replace

import pytest
import torch

from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.model.decoder import Decoder
from pipeline.checkpoints.names import (
    in_prediction_module,
    is_linear,
    own_parts,
    published_name,
    published_parts,
    shared_copies,
)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"q_lora_rank": None, "n_shared_experts": 0, "num_nextn_predict_layers": 2},
        {"num_expert_segments": 2},
        {"num_expert_segments": 2, "expert_segment_routing": "hierarchical"},
        {"num_expert_segments": 2, "moe_intermediate_size": 24, "expert_segment_sizes": (8, 16)},
    ],
)
def test_published_parts_cover_every_number_of_the_decoder_once(tiny_config: DecoderConfig, changes: dict) -> None:
    config = replace(tiny_config, **changes)
    state = Decoder(config).state_dict()
    counts = {name: torch.zeros(tensor.shape) for name, tensor in state.items()}
    for part in published_parts(config).values():
        if part.expert is None:
            assert tuple(state[part.own].shape) == part.shape
            counts[part.own] += 1
        else:
            counts[part.own][part.expert, part.start : part.start + part.shape[0]] += 1
    assert all(bool((count == 1).all()) for count in counts.values())
    assert list(own_parts(config)) == list(state)


def test_stacks_are_split_by_expert_and_projection(tiny_config: DecoderConfig) -> None:
    parts = published_parts(tiny_config)
    up = parts["model.layers.2.mlp.experts.5.up_proj.weight"]
    assert (up.own, up.expert, up.start, up.shape) == ("layers.2.mlp.experts.gate_up_proj", 5, 16, (16, 32))


def test_segments_of_several_widths_are_numbered_by_expert(tiny_config: DecoderConfig) -> None:
    config = replace(
        tiny_config,
        num_expert_segments=2,
        moe_intermediate_size=24,
        expert_segment_sizes=(8, 16),
        num_experts_per_tok=1,
    )
    parts = published_parts(config)
    part = parts["model.layers.1.mlp.experts.7.down_proj.weight"]
    assert (part.own, part.expert, part.shape) == ("layers.1.mlp.experts.segments.1.down_proj", 3, (32, 16))


def test_prediction_modules_count_on_after_the_last_layer(tiny_config: DecoderConfig) -> None:
    config = replace(tiny_config, num_nextn_predict_layers=2)
    assert published_name("mtp.1.norm.weight", config) == "model.layers.4.shared_head.norm.weight"
    assert published_name("mtp.0.block.mlp.gate.weight", config) == "model.layers.3.mlp.gate.weight"
    assert in_prediction_module("model.layers.3.enorm.weight", config)
    assert not in_prediction_module("model.layers.2.mlp.gate.weight", config)
    assert shared_copies(config)["model.layers.4.shared_head.head.weight"] == "lm_head.weight"


def test_what_the_published_checkpoint_has_in_fp8(tiny_config: DecoderConfig) -> None:
    kinds = {
        name.split(".")[-2]
        if "experts" not in name
        else name.split(".mlp.")[1].split(".")[0] + " " + name.split(".")[-2]
        for name in published_parts(replace(tiny_config, n_shared_experts=1))
        if is_linear(name)
    }
    attention = {"q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj"}
    dense = {"gate_proj", "up_proj", "down_proj"}
    assert kinds == attention | dense | {f"{of} {name}" for of in ("experts", "shared_experts") for name in dense}
    assert is_linear("model.layers.0.self_attn.q_proj.weight")
    for name in ("model.layers.61.eh_proj.weight", "model.layers.3.mlp.gate.weight", "lm_head.weight"):
        assert not is_linear(name)
