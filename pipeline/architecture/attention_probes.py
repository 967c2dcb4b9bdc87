"""How attention treats positions, found out by running it."""

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from lightning_modules.model.attention import LatentAttention
from lightning_modules.model.attention_inputs import AttentionInputs
from lightning_modules.model.cache import LatentCache
from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.model.decoder import Decoder
from lightning_modules.model.rotary import rotary_cos_sin, rotate

# Far enough apart for the slowest pair to turn visibly, also under YaRN.
DISTANCE = 100_003


@torch.no_grad()
def rotated_query_dims(config: DecoderConfig) -> int:
    """How many dimensions of a head's query change with position.

    Every dimension gets a head of its own, whose query is zero in all others. Where its tokens are moved far apart,
    what it attends to changes if positions rotate that dimension, and stays the same if not.
    """
    width = config.qk_head_dim
    attention = _with_random_weights(LatentAttention(replace(config, num_attention_heads=width)))
    query = attention.q_b_proj if attention.compresses_query else attention.q_proj
    query.weight.unflatten(0, (width, width)).mul_(torch.eye(width)[..., None])
    contexts: list[Tensor] = []
    attention.o_proj.register_forward_pre_hook(lambda _, arguments: contexts.append(arguments[0]))
    hidden = torch.randn(1, 8, config.hidden_size, generator=torch.Generator().manual_seed(1))
    for distance in (1, DISTANCE):
        positions = distance * torch.arange(8)[None]
        attention(hidden, AttentionInputs(*rotary_cos_sin(positions, config)))
    change = (contexts[0] - contexts[1]).abs().unflatten(-1, (width, -1)).amax(dim=(0, 1, 3))
    return int((change > 1e-5 * contexts[0].abs().max()).sum())


def rotary_pairs(decoder: Decoder) -> str:
    """Which dimensions turn together: adjacent ones, or those half a head apart."""
    attention = decoder.layers[0].self_attn
    assert isinstance(attention, LatentAttention)
    dim = decoder.config.rotary_dim
    cos, sin = rotary_cos_sin(torch.tensor([1]), decoder.config)
    turned = rotate(torch.eye(dim)[:1], cos, sin, attention.interleaves)
    partner = int(turned[0, 1:].abs().argmax()) + 1
    if dim == 2 or partner == 1:
        return "adjacent"
    return "half a head apart" if partner == dim // 2 else f"0 and {partner}"


def rotary_theta(config: DecoderConfig) -> float | None:
    """The base of the rotary frequencies, from the second fastest pair; None where there is only one."""
    if config.rotary_dim < 4:
        return None
    cos, sin = rotary_cos_sin(torch.tensor([1]), config)
    angle = float(torch.atan2(sin.double(), cos.double())[0, 1])
    return float(f"{angle ** (-config.rotary_dim / 2):.4g}")


def yarn_factor(config: DecoderConfig) -> float | None:
    """How many times slower than without YaRN the slowest pair turns: 1 where there is none."""
    if config.rotary_dim < 4:
        return None
    cos, sin = rotary_cos_sin(torch.tensor([1]), config)
    angle = float(torch.atan2(sin.double(), cos.double())[0, -1])
    plain = config.rope_theta ** (-(config.rotary_dim - 2) / config.rotary_dim)
    return float(f"{plain / angle:.4g}")


def attention_magnitude(decoder: Decoder) -> float:
    """What attention logits are scaled by beside the root of the head's width."""
    attention = decoder.layers[0].self_attn
    assert isinstance(attention, LatentAttention)
    return attention.scale * math.sqrt(decoder.config.qk_head_dim)


@torch.no_grad()
def decoding_error(decoder: Decoder) -> float:
    """How far decoding in chunks lies from one full forward pass: the greatest difference over the greatest logit."""
    tokens = torch.randint(decoder.config.vocab_size, (1, 24), generator=torch.Generator().manual_seed(1))
    full, _ = decoder.next_token_logits(tokens)
    cache = LatentCache(decoder.config, 1, capacity=tokens.shape[1])
    chunks = [decoder.extend(chunk, cache) for chunk in tokens.split([7, 1, 1, 5, 1, 9], dim=1)]
    return float((torch.cat(chunks, dim=1) - full).abs().max() / full.abs().max())


def _with_random_weights(attention: LatentAttention) -> LatentAttention:
    """Weights large enough that attention is far from uniform."""
    generator = torch.Generator().manual_seed(0)
    for module in attention.modules():
        if isinstance(module, nn.Linear):
            module.weight.normal_(std=2 * module.in_features**-0.5, generator=generator)
    return attention
