"""The decoder against DeepseekV3 of transformers, which we did not write: the same numbers, forwards and backwards."""

import copy
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.model.rotary import attention_scale, inverse_frequencies
from lightning_modules.model.yarn import YarnConfig

modeling = pytest.importorskip("transformers.models.deepseek_v3.modeling_deepseek_v3")
TOLERANCE = 5e-6
# 4 → 32 → 160 tokens: the two phases of DeepSeek-V3, 4K → 32K → 128K, with the same factor of 40.
YARN = YarnConfig(factor=40, original_max_position_embeddings=4)
PAST_THE_FIRST_PHASE = 48


@st.composite
def architectures(draw: st.DrawFn) -> dict[str, Any]:
    """Changes to the tiny configuration."""
    n_group = draw(st.sampled_from([1, 2, 4]))
    yarn = draw(st.sampled_from([None, YARN, YarnConfig(10, 16, beta_fast=4, mscale=0.7)]))
    return {
        "q_lora_rank": draw(st.sampled_from([None, 16])),
        "qk_rope_head_dim": draw(st.sampled_from([4, 8])),
        "rope_interleave": draw(st.booleans()),
        "rope_scaling": yarn,
        "max_position_embeddings": 160,
        "first_k_dense_replace": draw(st.integers(0, 3)),
        "n_shared_experts": draw(st.integers(0, 2)),
        "n_group": n_group,
        "topk_group": draw(st.integers(1, n_group)),
        "num_experts_per_tok": 2,  # of one expert, a normalised gate is always 1: the router would have no gradient
        "norm_topk_prob": draw(st.booleans()),
        "routed_scaling_factor": draw(st.sampled_from([1.0, 2.5])),
        "tie_word_embeddings": draw(st.booleans()),
        "num_nextn_predict_layers": draw(st.integers(0, 2)),
        "initializer_range": 0.1,
    }


@settings(derandomize=True, max_examples=20, deadline=None, database=None)
@given(changes=architectures())
def test_logits_and_every_gradient_are_equal(build_decoder, reference, compare_with_reference, changes: dict) -> None:
    decoder = build_decoder(**changes)
    comparison = compare_with_reference(decoder, reference(decoder), PAST_THE_FIRST_PHASE)
    assert comparison.logits < TOLERANCE
    assert comparison.ahead_logits < TOLERANCE
    assert {name: error for name, error in comparison.gradients.items() if error >= TOLERANCE} == {}
    assert comparison.gradients.keys() == dict(decoder.named_parameters()).keys()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"n_group": 1, "topk_group": 1, "num_experts_per_tok": 5},
        {"n_group": 2, "topk_group": 1, "num_experts_per_tok": 3, "norm_topk_prob": False},
    ],
)
def test_the_router_chooses_the_same_experts_with_the_same_gates(build_decoder, reference, changes: dict) -> None:
    decoder = build_decoder(**changes)
    ours, theirs = decoder.routers()[0], reference(decoder).model.model.layers[1].mlp.gate
    tokens = torch.randn(500, decoder.config.hidden_size, generator=torch.Generator().manual_seed(0))
    routing = ours(tokens)
    _, gates, indices = theirs(tokens)
    assert torch.equal(dense(routing.indices, routing.gates), dense(indices, gates))


def dense(indices: Tensor, gates: Tensor) -> Tensor:
    """Gates [R, E] with zeros for experts not chosen: the order of choice does not count."""
    return torch.zeros(len(indices), 8).scatter(1, indices, gates)


@pytest.mark.parametrize(
    "yarn", [YARN, YarnConfig(40, 4096, mscale=0.707, mscale_all_dim=1.0), YarnConfig(4, 64, 2, 1.9)]
)
@pytest.mark.parametrize("dim", [4, 64])
def test_yarn_frequencies_and_scale_are_bit_equal(build_decoder, reference, yarn: YarnConfig, dim: int) -> None:
    decoder = build_decoder(rope_scaling=yarn, qk_rope_head_dim=dim, max_position_embeddings=160)
    model = reference(decoder).model.model
    assert torch.equal(inverse_frequencies(decoder.config), model.rotary_emb.inv_freq)
    assert attention_scale(decoder.config) == model.layers[0].self_attn.scaling


def test_yarn_differs_from_plain_positions_where_it_should(tiny_config: DecoderConfig) -> None:
    plain = replace(tiny_config, qk_rope_head_dim=64)
    scaled = replace(plain, rope_scaling=YarnConfig(40, 4096), max_position_embeddings=4096 * 40)
    ratio = inverse_frequencies(plain) / inverse_frequencies(scaled)
    # DeepSeek-V3's own ramp, from pair 10 to pair 23 of 32.
    torch.testing.assert_close(ratio[:11], torch.ones(11))
    torch.testing.assert_close(ratio[23:], torch.full((9,), 40.0))
    assert ((ratio[11:23] > 1) & (ratio[11:23] < 40)).all()
    assert attention_scale(scaled) / attention_scale(plain) == pytest.approx((0.1 * math.log(40) + 1) ** 2)


def take_deepseeks_arithmetic(patch: pytest.MonkeyPatch) -> None:
    """Make transformers round where DeepSeek's published code does: it rotates complex numbers in FP32, and norms once.

    transformers rounds the angles' cosines, and the norm before its weight.
    """
    angles = modeling.DeepseekV3RotaryEmbedding.forward

    def rotate(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, ...]:
        half = cos.shape[-1] // 2
        turn = torch.complex(cos[..., :half], sin[..., :half])[:, None]
        pairs = [torch.view_as_complex(x.float().unflatten(-1, (-1, 2))) for x in (q, k)]
        return tuple(torch.view_as_real(x * turn).flatten(-2).type_as(q) for x in pairs)

    def normalise(norm: Any, x: Tensor) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], norm.weight, norm.variance_epsilon)

    patch.setattr(modeling, "apply_rotary_pos_emb_interleave", rotate)
    patch.setattr(modeling.DeepseekV3RotaryEmbedding, "forward", lambda self, x, at: angles(self, x.float(), at))
    patch.setattr(modeling.DeepseekV3RMSNorm, "forward", normalise)


def rms_error(actual: Tensor, expected: Tensor) -> Tensor:
    return (actual.float() - expected.float()).square().mean().sqrt() / expected.float().square().mean().sqrt()


@torch.no_grad()
def test_bf16_is_as_near_as_two_bf16_references_are(build_decoder, reference, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = []
    for seed, yarn in enumerate([None, YARN, None, YARN]):
        # Every expert is chosen: a choice that rounding tips would hide the arithmetic.
        decoder = build_decoder(
            rope_scaling=yarn, max_position_embeddings=160, q_lora_rank=[16, None][seed % 2], initializer_range=0.1,
            n_group=1, topk_group=1, num_experts_per_tok=8, num_nextn_predict_layers=0,
        )  # fmt: skip
        tokens = torch.randint(0, 40, (4, 64), generator=torch.Generator().manual_seed(seed))
        exact = decoder.next_token_logits(tokens)[0]
        rounded = copy.deepcopy(decoder)
        for parameter in rounded.parameters():
            parameter.data = parameter.data.bfloat16()
        ours = rounded.next_token_logits(tokens)[0]
        theirs = reference(rounded)(tokens)[0]
        with monkeypatch.context() as patch:
            take_deepseeks_arithmetic(patch)
            deepseeks = reference(rounded)(tokens)[0]
        rows.append(
            [rms_error(ours, deepseeks), rms_error(theirs, deepseeks)]
            + [rms_error(logits, exact) for logits in (ours, theirs, deepseeks)]
        )
    apart, references_apart, ours_off, theirs_off, deepseeks_off = torch.tensor(rows).mean(dim=0)
    assert apart < references_apart
    assert ours_off < max(theirs_off, deepseeks_off)
    assert references_apart < 0.02
