"""Attention without a decoupled rotary part: positions rotate whole heads, as the model card has it."""

from dataclasses import replace

import pytest
import torch

from lightning_modules.model.attention import LatentAttention
from lightning_modules.model.attention_inputs import causal_inputs
from lightning_modules.model.cache import LatentCache

CHANGES = {"qk_nope_head_dim": 8, "qk_rope_head_dim": 0, "v_head_dim": 8, "q_lora_rank": None}


def rotated(x, theta):
    """Adjacent pairs of [H, T, d] as complex numbers, turned by their positions, in float64."""
    frequencies = theta ** -(torch.arange(0, x.shape[-1], 2, dtype=torch.float64) / x.shape[-1])
    angles = torch.arange(x.shape[1], dtype=torch.float64)[:, None] * frequencies
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)).flatten(-2)


@torch.no_grad()
def test_whole_queries_and_keys_are_rotated(tiny_config):
    torch.manual_seed(0)
    config = replace(tiny_config, **CHANGES)
    attention = LatentAttention(config)
    hidden = torch.randn(1, 12, config.hidden_size)
    output = attention(hidden, causal_inputs(config, 1, 12, hidden.device))

    weights = {name: parameter.double() for name, parameter in attention.named_parameters()}
    x = hidden[0].double()
    latent = x @ weights["kv_a_proj_with_mqa.weight"].T
    latent = latent / (latent.square().mean(dim=-1, keepdim=True) + 1e-6).sqrt() * weights["kv_a_layernorm.weight"]
    query = (x @ weights["q_proj.weight"].T).unflatten(-1, (2, 8)).transpose(0, 1)
    key, value = (latent @ weights["kv_b_proj.weight"].T).unflatten(-1, (2, 16)).transpose(0, 1).split(8, dim=-1)
    scores = rotated(query, config.rope_theta) @ rotated(key, config.rope_theta).mT / 8**0.5
    scores = scores.masked_fill(torch.ones(12, 12).triu(1).bool(), -torch.inf)
    expected = (scores.softmax(-1) @ value).transpose(0, 1).flatten(1) @ weights["o_proj.weight"].T
    torch.testing.assert_close(output[0].double(), expected, rtol=1e-5, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("chunks", [[1] * 24, [10, 1, 13], [24]])
def test_decoding_in_chunks_equals_the_full_forward(build_decoder, chunks):
    decoder = build_decoder(**CHANGES)
    tokens = torch.randint(40, (2, 24))
    full, _ = decoder.next_token_logits(tokens)
    cache = LatentCache(decoder.config, 2, capacity=24)
    decoded = torch.cat([decoder.extend(chunk, cache) for chunk in tokens.split(chunks, dim=1)], dim=1)
    assert float((decoded - full).abs().max() / full.abs().max()) < 5e-6
    assert cache.rope_key.numel() == 0


def test_whole_heads_come_in_pairs(tiny_config):
    with pytest.raises(ValueError, match=r"model\.qk_nope_head_dim is 7; rotary dimensions come in pairs"):
        replace(tiny_config, qk_nope_head_dim=7, qk_rope_head_dim=0)
    with pytest.raises(ValueError, match="neither must be negative, and one must be positive"):
        replace(tiny_config, qk_nope_head_dim=0, qk_rope_head_dim=0)
