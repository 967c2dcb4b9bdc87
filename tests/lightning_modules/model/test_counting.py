import time
from dataclasses import replace
from pathlib import Path

import hydra
import pytest
import torch

from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.model.counting import (
    build_on_meta,
    cache_bytes_per_token,
    checkpoint_bytes,
    component_parameters,
    count_parameters,
    forward_flops_per_token,
    measured_forward_flops,
    training_flops_per_token,
)
from lightning_modules.model.decoder import Decoder

CONF = Path(__file__).parents[3] / "conf"


def preset(name: str) -> DecoderConfig:
    with hydra.initialize_config_dir(str(CONF), version_base=None):
        values = dict(hydra.compose(f"model/{name}").model)
    del values["objective"]
    return DecoderConfig(**values)


@pytest.fixture(scope="module")
def deepseek_v3() -> Decoder:
    return build_on_meta(preset("deepseek_v3"))


def test_deepseek_v3_counts_to_the_last_parameter(deepseek_v3):
    counts = count_parameters(deepseek_v3)
    assert counts.total == 671_026_404_352
    assert counts.active == 37_552_282_624
    assert counts.active_without_embedding == 36_625_603_584
    assert counts.mtp == 11_610_067_968
    assert counts.mtp_as_published == 13_463_426_048
    assert counts.published == 684_489_830_400
    assert counts.routing_bias == 14_848
    assert {layer["attention"] for layer in counts.by_layer} == {187_107_328}
    assert counts.by_component["attention"] == 61 * 187_107_328


def test_other_presets_count_as_stated():
    counts = count_parameters(build_on_meta(preset("bench_3b")))
    assert counts.total == 3_596_026_880
    assert counts.active_without_embedding - counts.by_component["norms"] == pytest.approx(672.5e6, abs=0.1e6)
    assert count_parameters(build_on_meta(preset("card"))).total == 670_432_158_208
    assert count_parameters(build_on_meta(preset("deepseek_v3_16b"))).total == pytest.approx(15.7e9, rel=0.01)


def test_671_billion_parameters_are_built_in_seconds():
    config = preset("deepseek_v3")
    start = time.perf_counter()
    decoder = build_on_meta(config)
    count_parameters(decoder)
    assert time.perf_counter() - start < 5
    assert all(parameter.is_meta for parameter in decoder.parameters())


def test_counting_agrees_with_the_parameters_of_a_real_decoder(build_decoder):
    decoder = build_decoder(num_nextn_predict_layers=2)
    counts = count_parameters(decoder)
    n_parameters = sum(parameter.numel() for parameter in decoder.parameters())
    assert counts.total + counts.mtp == n_parameters
    assert sum(sum(layer.values()) for layer in counts.by_layer) == counts.total - 2 * 40 * 32 - 32


@pytest.mark.parametrize("changes", [{}, {"n_shared_experts": 0}, {"num_expert_segments": 2}, {"q_lora_rank": None}])
def test_active_parameters_are_those_that_receive_a_gradient(build_decoder, changes):
    """One token, one row: whatever multiplied has a gradient, and unchosen experts have none."""
    decoder = build_decoder(num_nextn_predict_layers=0, **changes)
    logits, _ = decoder.next_token_logits(torch.tensor([[3]]))
    logits.square().sum().backward()
    active = sum(
        int((parameter.grad.flatten(1).abs().amax(dim=1) > 0).sum()) * parameter[0].numel()
        for name, parameter in decoder.named_parameters()
        if ".experts." in name
    )
    always = sum(p.numel() for name, p in decoder.named_parameters() if ".experts." not in name)
    assert count_parameters(decoder).active == active + always


def test_a_tied_embedding_counts_once_and_still_multiplies(tiny_config):
    untied, tied = (
        count_parameters(build_on_meta(replace(tiny_config, tie_word_embeddings=tied))) for tied in (False, True)
    )
    assert untied.total - tied.total == 40 * 32
    assert untied.active_without_embedding == tied.active_without_embedding
    assert "head" not in tied.by_component


def test_unequal_segments_count_on_average(tiny_config):
    whole, split = (
        count_parameters(build_on_meta(config))
        for config in (
            replace(tiny_config, moe_intermediate_size=32),
            replace(
                tiny_config,
                moe_intermediate_size=32,
                num_expert_segments=2,
                expert_segment_sizes=(8, 24),
                expert_segment_routing="hierarchical",
                num_segments_per_expert=1,
            ),
        )
    )
    assert whole.by_component["routed_experts"] == split.by_component["routed_experts"]
    routed = 2 * whole.by_component["routed_experts"] // 8  # two of eight experts are chosen, and then half of each
    extra_gates = split.by_component["router"] - whole.by_component["router"]
    assert whole.active - split.active == routed // 2 - extra_gates


def test_flops_of_the_benchmark_shape():
    assert training_flops_per_token(build_on_meta(preset("bench_3b")), 4096) == pytest.approx(4.79e9, rel=1e-3)


@pytest.mark.parametrize("v_head_dim", [12, 16])
def test_forward_flops_agree_with_what_pytorch_dispatches(build_decoder, v_head_dim):
    # The CPU's fused attention fills 12 up to 16, and computes both halves of a square; a long row makes them count.
    decoder, n_tokens = build_decoder(v_head_dim=v_head_dim, num_nextn_predict_layers=0), 256
    vectors = sum(parameter.numel() for parameter in decoder.parameters() if parameter.ndim < 2)
    layers, heads, widest = 3, 2, max(12, v_head_dim)
    causal_half = (12 + v_head_dim) / 2
    filled_up = 2 * widest - (12 + v_head_dim)
    beyond = 2 * layers * heads * (causal_half + filled_up) * n_tokens**2
    expected = n_tokens * (forward_flops_per_token(decoder, n_tokens) - 2 * vectors) + beyond
    assert measured_forward_flops(decoder, n_tokens) == expected


def test_cache_bytes():
    assert cache_bytes_per_token(preset("deepseek_v3")) == 70_272
    assert cache_bytes_per_token(preset("deepseek_v3"), fp8=True) == 61 * 656
    assert cache_bytes_per_token(preset("card")) == 61 * 1536 * 2


def test_checkpoint_bytes(deepseek_v3, tiny_config):
    biases = 4 * 256 * 59
    assert checkpoint_bytes(deepseek_v3) == 2 * 684_489_830_400 + biases
    # 128 wide throughout, so that blocks can be counted by hand: FP8 saves a byte an element, less 4 for each 128².
    config = replace(
        tiny_config,
        num_hidden_layers=1,
        first_k_dense_replace=1,
        num_nextn_predict_layers=0,
        hidden_size=128,
        intermediate_size=200,
        q_lora_rank=128,
        kv_lora_rank=120,
        qk_nope_head_dim=56,
        qk_rope_head_dim=8,
        v_head_dim=8,
    )
    decoder = build_on_meta(config)
    matrices = [
        p for c, _, p in component_parameters(decoder) if c in ("attention", "dense_feed_forward") and p.ndim == 2
    ]
    n_blocks = 5 + 3 * 2  # attention's five matrices in one block each, the feed-forward network's three in two
    saved = sum(matrix.numel() for matrix in matrices) - 4 * n_blocks
    assert checkpoint_bytes(decoder) - checkpoint_bytes(decoder, fp8=True) == saved


def test_a_parameter_of_no_known_kind_is_refused(tiny_config):
    decoder = build_on_meta(tiny_config)
    decoder.layers[0].extra = torch.nn.Linear(2, 2, device="meta")
    with pytest.raises(ValueError, match=r"layers\.0\.extra\.weight lies in a module of no known component"):
        count_parameters(decoder)
