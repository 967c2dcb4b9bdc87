"""Prompts on a GPU in 16 bits: between products, each number is read and written once.

Of the last layer only latents are needed, but for tokens whose hidden states are asked for. Where that is one a row,
it goes through the last layer as a step's token does.

Suffixes as in `attention.py`; N rows, one a token: B · T, and M keys: B · S.
"""

from copy import copy
from functools import cached_property
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_modules.model.attention import LatentAttention
from lightning_modules.model.attention_inputs import absorbing_is_cheaper
from lightning_modules.model.cache import LatentCache
from lightning_modules.model.decoder import Block, Decoder
from lightning_modules.model.decoding import gpu_step
from lightning_modules.model.decoding.gpu_attention import Place, remembered
from lightning_modules.model.decoding.gpu_network import choice_of, router_logits
from lightning_modules.model.decoding.gpu_step import Beginning, GpuStep, halves_of
from lightning_modules.model.decoding.prompts import one_a_row
from lightning_modules.model.document_borders import DocumentBorders
from lightning_modules.model.experts import FeedForward, GroupedExperts, MixtureOfExperts, grouped_linear
from lightning_modules.model.kernels import attention_parts, expert_activation
from lightning_modules.model.kernels.expert_ranks import choose
from lightning_modules.model.kernels.latent_append import append_latent
from lightning_modules.model.kernels.position import rotate_in_place, share_key
from lightning_modules.model.kernels.row_norm import normalise
from lightning_modules.model.kernels.sorted_rows import add_rows, sort_by_expert, spread
from lightning_modules.model.kernels.swiglu import activate
from lightning_modules.model.within_borders import attend_within_borders, fits_borders


class GpuReader:
    """See `PromptReader`.

    Args:
        decoder: one that it `applies_to`.
    """

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder
        self.begin = Beginning(decoder)
        self.layers = [GpuLayer(cast(Block, block)) for block in decoder.layers]
        self.last = halves_of(cast(Block, decoder.layers[-1]))

    @cached_property
    def step(self) -> GpuStep:
        """What reads few tokens."""
        return GpuStep(self.decoder)

    def extend(self, tokens: Tensor, cache: LatentCache) -> Tensor:
        """See `PromptReader`."""
        if self._is_step(tokens, cache):
            return self.step(tokens, cache)
        hidden, place = self._below_last(tokens, cache)
        self.layers[-1](hidden, place, len(self.layers) - 1)
        cache.advance(tokens.shape[1])
        return normalise(self.decoder.norm, hidden).view(*tokens.shape, -1)

    def remember(self, tokens: Tensor, cache: LatentCache) -> None:
        """See `PromptReader`."""
        if self._is_step(tokens, cache):
            self.step(tokens, cache)
            return
        self._remember(tokens, cache)
        cache.advance(tokens.shape[1])

    def extend_to(self, tokens: Tensor, cache: LatentCache, index: Tensor) -> Tensor:
        """See `PromptReader`."""
        if self._is_step(tokens, cache):
            return one_a_row(self.step(tokens, cache), index)
        hidden, place = self._remember(tokens, cache)
        chosen, cos, sin = (one_a_row(x.unflatten(0, tokens.shape), index) for x in (hidden, place.cos, place.sin))
        # What it appends is there already.
        attend, feed_forward = self.last
        there = copy(cache)
        there.lengths = cache.lengths + index
        chosen = feed_forward(attend(chosen, Place(there, 1, cos, sin), len(self.layers) - 1))
        cache.advance(tokens.shape[1])
        return self.decoder.norm(chosen)

    def _remember(self, tokens: Tensor, cache: LatentCache) -> tuple[Tensor, Place]:
        """Append `tokens` to `cache`: what enters the last layer [N, D], and where it stands."""
        hidden, place = self._below_last(tokens, cache)
        self.layers[-1].attention.append(normalise(self.layers[-1].attention_norm, hidden), place, len(self.layers) - 1)
        return hidden, place

    def _below_last(self, tokens: Tensor, cache: LatentCache) -> tuple[Tensor, Place]:
        """All layers but the last."""
        cache.extent(tokens.shape[1])
        hidden, place = self.begin(tokens, cache)
        for index, layer in enumerate(self.layers[:-1]):
            layer(hidden, place, index)
        return hidden, place

    def _is_step(self, tokens: Tensor, cache: LatentCache) -> bool:
        """Whether tokens are few beside what is held."""
        return cache.longest > 0 and absorbing_is_cheaper(self.decoder.config, tokens.shape[1])


def applies_to(decoder: Decoder) -> bool:
    """Whether a decoder is in 16 bits, and kernels know all that it is made of."""
    is_wide = decoder.embed_tokens.weight.dtype != torch.bfloat16
    return not is_wide and gpu_step.applies_to(decoder) and fits_borders(decoder.config)


class GpuLayer:
    """A block over many rows, which are changed in place."""

    def __init__(self, block: Block) -> None:
        self.attention_norm, self.network_norm = block.input_layernorm, block.post_attention_layernorm
        self.attention = ExpandedAttention(block.self_attn)
        self.network: Dense | Mixture = (
            Mixture(block.mlp) if isinstance(block.mlp, MixtureOfExperts) else Dense(block.mlp)
        )

    def __call__(self, hidden: Tensor, place: Place, layer: int) -> None:
        """Let `hidden` [N, D] go through the block, and store in the cache's `layer` what it is to hold."""
        self.attention.add(normalise(self.attention_norm, hidden), hidden, place, layer)
        self.network.add(normalise(self.network_norm, hidden), hidden)


class ExpandedAttention:
    """Attention over keys and values of every head, expanded into the places where it reads them."""

    def __init__(self, attention: LatentAttention) -> None:
        self.attention = attention

    def append(self, normalised: Tensor, place: Place, layer: int) -> None:
        """Store in the cache's `layer` what it is to hold of tokens."""
        projected = F.linear(normalised, self.attention.kv_a_proj_with_mqa.weight)
        append_latent(remembered(self.attention, projected, place, layer))

    def add(self, normalised: Tensor, hidden: Tensor, place: Place, layer: int) -> None:
        """Add what tokens attend to to their `hidden` states [N, D]."""
        self.append(normalised, place, layer)
        query = self._query(normalised, place)
        latent, rope_key = place.cache.held(layer, place.n_new, hidden.dtype)
        key, value = self._expand(latent.flatten(0, 1), rope_key.flatten(0, 1))
        heads = self._attend(query, key, value, place)
        hidden.addmm_(heads.reshape(len(hidden), -1), self.attention.o_proj.weight.mT)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, place: Place) -> Tensor:
        """What queries [N, H, nope + P], the last of every row, attend to [·, H, value], of all M keys."""
        (cache, n_new, _, _), scale = place, self.attention.scale
        new = query.unflatten(0, (-1, n_new)).transpose(1, 2)
        keys, values = (x.unflatten(1, (new.shape[0], -1)).transpose(0, 1) for x in (key, value))
        if keys.shape[2] == n_new:
            return F.scaled_dot_product_attention(new, keys, values, is_causal=True, scale=scale).transpose(1, 2)
        if cache.is_even and attention_parts.fits(new, keys, values):
            return attention_parts.attend_held(new, keys, values, scale)
        of_new = DocumentBorders.of_beginnings(torch.full_like(cache.lengths, n_new), n_new)
        of_held = DocumentBorders.of_beginnings(cache.lengths + n_new, keys.shape[2])
        return attend_within_borders(query, key.transpose(0, 1), value.transpose(0, 1), of_new, of_held, scale)

    def _query(self, normalised: Tensor, place: Place) -> Tensor:
        """Queries [N, H, nope + P], their last numbers rotated."""
        attention = self.attention
        if attention.compresses_query:
            compressed = normalise(attention.q_a_layernorm, F.linear(normalised, attention.q_a_proj.weight))
            query = F.linear(compressed, attention.q_b_proj.weight)
        else:
            query = F.linear(normalised, attention.q_proj.weight)
        query = query.unflatten(1, (attention.n_heads, -1))
        rotate_in_place(query, place.cos, place.sin, attention.interleaves)
        return query

    def _expand(self, latent: Tensor, rope_key: Tensor) -> tuple[Tensor, Tensor]:
        """Keys [H, M, nope + P] and values [H, M, value] of latents [M, R] and rotated keys [M, P]."""
        attention = self.attention
        up = attention.kv_b_proj.weight.unflatten(0, (attention.n_heads, -1))
        key_up, value_up = up.split((attention.nope_dim, attention.value_dim), dim=1)
        rows = latent.expand(attention.n_heads, -1, -1)
        key = latent.new_empty(attention.n_heads, len(latent), attention.nope_dim + attention.rope_dim)
        torch.bmm(rows, key_up.mT, out=key[..., : attention.nope_dim])
        share_key(rope_key, key)
        return key, torch.bmm(rows, value_up.mT)


class Dense:
    """A dense network."""

    def __init__(self, network: FeedForward) -> None:
        self.network = network

    def add(self, normalised: Tensor, hidden: Tensor) -> None:
        """Add what it makes of `normalised` [N, D] to `hidden` [N, D]."""
        gate, up = self.network.gate_proj.weight, self.network.up_proj.weight
        both = normalised.new_empty(len(normalised), 2 * len(gate))
        torch.mm(normalised, gate.mT, out=both[:, : len(gate)])
        torch.mm(normalised, up.mT, out=both[:, len(gate) :])
        hidden.addmm_(activate(both), self.network.down_proj.weight.mT)


class Mixture:
    """A mixture of experts."""

    def __init__(self, mixture: MixtureOfExperts) -> None:
        self.mixture = mixture
        self.choice = choice_of(mixture.gate)
        self.shared = None if mixture.shared_experts is None else Dense(mixture.shared_experts)

    def add(self, normalised: Tensor, hidden: Tensor) -> None:
        """Add what it makes of `normalised` [N, D] to `hidden` [N, D]."""
        experts = cast(GroupedExperts, self.mixture.experts)
        choices = choose(router_logits(self.mixture.gate, normalised), self.choice)
        order = sort_by_expert(choices, self.choice.n_experts)
        gate_up = experts.gate_up_proj
        if expert_activation.fits(normalised, gate_up):
            activations = expert_activation.activate(normalised, order.sources, gate_up, order.weights, order.ends)
        else:
            rows = grouped_linear(spread(normalised, order.places), gate_up, order.ends)
            activations = activate(rows, order.weights)
        rows = grouped_linear(activations, experts.down_proj, order.ends)
        if self.shared is not None:
            self.shared.add(normalised, hidden)
        add_rows(rows, order.places, hidden)
