"""Multi-head Latent Attention (arXiv 2412.19437, section 2.1.1).

Suffixes: B batch, T query tokens, S key tokens, H heads, R latent rank, P rotary dimensions.
"""

from functools import partial

import torch
from torch import Tensor, nn

from lightning_modules.model import by_hand
from lightning_modules.model.attention_inputs import AttentionInputs
from lightning_modules.model.attention_over_ranks import attend_over_ranks
from lightning_modules.model.by_hand.attention import attend
from lightning_modules.model.cache import LatentCache
from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.model.fused_attention import fused_attention
from lightning_modules.model.key_spans import KeySpans, attend_spans
from lightning_modules.model.norm import RMSNorm
from lightning_modules.model.rotary import attention_scale, rotate
from lightning_modules.model.shared_rows import Sharing
from lightning_modules.model.within_borders import attend_within_borders

# DeepSeek's code and transformers normalise the latents with this constant, whatever rms_norm_eps says.
LATENT_NORM_EPS = 1e-6


class LatentAttention(nn.Module):
    """Attention whose keys and values are expanded from one small latent a token.

    Only `qk_rope_head_dim` dimensions carry position: a rotated part of each head's query, and one rotated key that
    all heads share. With `qk_rope_head_dim` 0 nothing is decoupled: positions rotate whole queries and keys of every
    head. The rotation then stands between W_UK and the query, and absorbing is impossible.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.n_heads = config.num_attention_heads
        self.nope_dim = config.qk_nope_head_dim
        self.rope_dim = config.qk_rope_head_dim
        self.value_dim = config.v_head_dim
        self.latent_rank = config.kv_lora_rank
        self.scale = attention_scale(config)
        self.interleaves = config.rope_interleave
        hidden, query_width = config.hidden_size, config.num_attention_heads * config.qk_head_dim
        self.compresses_query = config.q_lora_rank is not None
        if config.q_lora_rank is not None:
            self.q_a_proj = nn.Linear(hidden, config.q_lora_rank, bias=False)
            self.q_a_layernorm = RMSNorm(config.q_lora_rank, eps=LATENT_NORM_EPS)
            self.q_b_proj = nn.Linear(config.q_lora_rank, query_width, bias=False)
        else:
            self.q_proj = nn.Linear(hidden, query_width, bias=False)
        self.kv_a_proj_with_mqa = nn.Linear(hidden, config.kv_lora_rank + config.qk_rope_head_dim, bias=False)
        self.kv_a_layernorm = RMSNorm(config.kv_lora_rank, eps=LATENT_NORM_EPS)
        self.kv_b_proj = nn.Linear(config.kv_lora_rank, self.n_heads * (self.nope_dim + self.value_dim), bias=False)
        self.o_proj = nn.Linear(self.n_heads * self.value_dim, hidden, bias=False)

    def forward(
        self, hidden: Tensor, inputs: AttentionInputs, cache: LatentCache | None = None, layer: int = 0
    ) -> Tensor:
        """Attend from `hidden` [B, T, D] to itself, or to everything in `cache` with it appended; returns [B, T, D]."""
        if inputs.sharing is not None:
            return self.o_proj(self._attend_over_ranks(hidden, inputs, inputs.sharing).flatten(2))
        if cache is None and self._has_kernels(hidden, inputs):
            return self.o_proj(self._attend_in_kernels(hidden, inputs).flatten(2))
        query_nope, query_rope = self._query(hidden, inputs)
        latent, rope_key = self._latent(self.kv_a_proj_with_mqa(hidden), inputs)
        if cache is not None:
            latent, rope_key = cache.append(layer, latent, rope_key)
        if inputs.absorb:
            assert inputs.spans is not None
            heads = self._attend_absorbed(query_nope, query_rope, latent, rope_key, inputs.spans)
        else:
            heads = self._attend_expanded(query_nope, query_rope, latent, rope_key, inputs)
        return self.o_proj(heads.transpose(1, 2).flatten(2))

    def _query(self, hidden: Tensor, inputs: AttentionInputs) -> tuple[Tensor, Tensor]:
        """Queries [B, H, T, nope] without position and [B, H, T, P] rotated."""
        nope, rope = self._heads_of_query(hidden).transpose(1, 2).split((self.nope_dim, self.rope_dim), dim=-1)
        if self.rope_dim == 0:
            return rotate(nope, inputs.cos[:, None], inputs.sin[:, None], self.interleaves), rope
        return nope, rotate(rope, inputs.cos[:, None], inputs.sin[:, None], self.interleaves)

    def _heads_of_query(self, hidden: Tensor) -> Tensor:
        """Queries [B, T, H, nope + P], not rotated."""
        if self.compresses_query:
            query = self.q_b_proj(self.q_a_layernorm(self.q_a_proj(hidden)))
        else:
            query = self.q_proj(hidden)
        return query.unflatten(-1, (self.n_heads, -1))

    def _latent(self, compressed: Tensor, inputs: AttentionInputs) -> tuple[Tensor, Tensor]:
        """The normalised latent [B, T, R] and the rotated shared key [B, T, P]: all that a cache has to hold."""
        latent, rope_key = compressed.split((self.latent_rank, self.rope_dim), dim=-1)
        if self.rope_dim == 0:
            return self.kv_a_layernorm(latent), rope_key
        return self.kv_a_layernorm(latent), rotate(rope_key, *inputs.key_angles(), self.interleaves)

    def _attend_expanded(
        self, query_nope: Tensor, query_rope: Tensor, latent: Tensor, rope_key: Tensor, inputs: AttentionInputs
    ) -> Tensor:
        """Expand keys and values of every head from the latent, then attend; returns [B, H, T, value_dim]."""
        key_nope, shared_key, value = self._expand(latent, rope_key, inputs)
        if inputs.borders is not None:
            tokens = (_end_to_end(query_nope, query_rope), _end_to_end(key_nope, shared_key), _end_to_end(value))
            heads = attend_within_borders(*tokens, inputs.borders, inputs.key_borders or inputs.borders, self.scale)
            return heads.unflatten(0, (query_nope.shape[0], -1)).transpose(1, 2)
        query = torch.cat((query_nope, query_rope), dim=-1)
        key = torch.cat((key_nope, shared_key), dim=-1)
        if inputs.spans is not None:
            return attend_spans(query, key, value, inputs.spans, self.scale)
        if query.requires_grad and by_hand.applies_to(query):
            rows = tuple((row, 0, query.shape[2]) for row in range(query.shape[0]))
            return attend(query, key, value, self.scale, rows if inputs.stretches is None else inputs.stretches)
        if inputs.stretches is not None:
            return self._attend_by_stretch(query, key, value, inputs.stretches)
        return fused_attention(query, key, value, self.scale)

    def _expand(self, latent: Tensor, rope_key: Tensor, inputs: AttentionInputs) -> tuple[Tensor, Tensor, Tensor]:
        """Keys of every head [B, H, S, nope], behind each of them [B, H, S, P], and values [B, H, S, value_dim]."""
        expanded = self.kv_b_proj(latent).unflatten(-1, (self.n_heads, -1)).transpose(1, 2)
        key_nope, value = expanded.split((self.nope_dim, self.value_dim), dim=-1)
        if self.rope_dim == 0:
            cos, sin = inputs.key_angles()
            key_nope = rotate(key_nope, cos[:, None], sin[:, None], self.interleaves)
        return key_nope, rope_key[:, None].expand(-1, self.n_heads, -1, -1), value

    def _has_kernels(self, hidden: Tensor, inputs: AttentionInputs) -> bool:
        """Whether kernels rotate the heads: in 16 bits, where a power of two of dimensions turn, and without spans."""
        is_power_of_2 = self.rope_dim > 1 and self.rope_dim.bit_count() == 1
        takes_kernels = hidden.is_cuda and hidden.dtype.itemsize == 2 and is_power_of_2 and self.nope_dim > 0
        return takes_kernels and inputs.spans is None and inputs.stretches is None

    def _attend_in_kernels(self, hidden: Tensor, inputs: AttentionInputs) -> Tensor:
        """As `_attend_expanded`, but [B, T, H, value_dim]: heads stay as they come, side by side for each token."""
        query = self._query_in_kernels(hidden, inputs)
        key, value = self._expand_in_kernels(self.kv_a_proj_with_mqa(hidden), inputs)
        if inputs.borders is not None:
            tokens = (query.flatten(0, 1), key.flatten(0, 1), value.flatten(0, 1))
            heads = attend_within_borders(*tokens, inputs.borders, inputs.key_borders or inputs.borders, self.scale)
            return heads.unflatten(0, hidden.shape[:2])
        query, key, value = (heads.transpose(1, 2) for heads in (query, key, value))
        return fused_attention(query, key, value, self.scale).transpose(1, 2)

    def _query_in_kernels(self, hidden: Tensor, inputs: AttentionInputs) -> Tensor:
        """Queries [B, T, H, nope + P], rotated."""
        from lightning_modules.model.kernels.heads import rotate_queries

        return rotate_queries(self._heads_of_query(hidden), inputs.cos, inputs.sin, self.interleaves)

    def _expand_in_kernels(self, compressed: Tensor, inputs: AttentionInputs) -> tuple[Tensor, Tensor]:
        """Keys [B, S, H, nope + P], rotated, and values [B, S, H, value_dim]."""
        from lightning_modules.model.kernels.heads import join_keys

        latent, shared_key = compressed.split((self.latent_rank, self.rope_dim), dim=-1)
        expanded = self.kv_b_proj(self.kv_a_layernorm(latent)).unflatten(-1, (self.n_heads, -1))
        key, value = expanded.split((self.nope_dim, self.value_dim), dim=-1)
        return join_keys(key, shared_key, *inputs.key_angles(), self.interleaves), value

    def _attend_over_ranks(self, hidden: Tensor, inputs: AttentionInputs, sharing: Sharing) -> Tensor:
        """From this rank's part of rows [2B, C, D] to all of them, as all ranks hold them; [2B, C, H, value_dim]."""
        if self._has_kernels(hidden, inputs):
            query, expand = self._query_in_kernels(hidden, inputs), self._expand_in_kernels
        else:
            query, expand = torch.cat(self._query(hidden, inputs), dim=-1).transpose(1, 2), self._expand_in_order
        compressed = self.kv_a_proj_with_mqa(hidden)
        return attend_over_ranks(query, compressed, partial(expand, inputs=inputs), sharing, self.scale)

    def _expand_in_order(self, compressed: Tensor, inputs: AttentionInputs) -> tuple[Tensor, Tensor]:
        """As `_expand_in_kernels`."""
        key_nope, shared_key, value = self._expand(*self._latent(compressed, inputs), inputs)
        return torch.cat((key_nope, shared_key), dim=-1).transpose(1, 2), value.transpose(1, 2)

    def _attend_by_stretch(
        self, query: Tensor, key: Tensor, value: Tensor, stretches: tuple[tuple[int, int, int], ...]
    ) -> Tensor:
        """Causal attention over each stretch by itself; returns [B, H, T, value_dim], zeros outside of them."""
        n_rows, n_positions = query.shape[0], query.shape[2]
        parts: list[list[Tensor]] = [[] for _ in range(n_rows)]
        ends = [0] * n_rows
        for row, start, stop in [*stretches, *((row, n_positions, n_positions) for row in range(n_rows))]:
            if start > ends[row]:
                parts[row].append(torch.zeros_like(value[row : row + 1, :, ends[row] : start]))
            if stop > start:
                one = (slice(row, row + 1), slice(None), slice(start, stop))
                parts[row].append(fused_attention(query[one], key[one], value[one], self.scale))
            ends[row] = stop
        return torch.cat([torch.cat(row_parts, dim=2) for row_parts in parts])

    def _attend_absorbed(
        self, query_nope: Tensor, query_rope: Tensor, latent: Tensor, rope_key: Tensor, spans: KeySpans
    ) -> Tensor:
        """Attend over the latent itself: W_UK moves into the query and W_UV into the output.

        The same numbers as the expanded form, by associativity, without keys and values ever existing per head.
        """
        up = self.kv_b_proj.weight.unflatten(0, (self.n_heads, -1))
        key_up, value_up = up.split((self.nope_dim, self.value_dim), dim=1)
        # Heads are rows of one product, for broadcasting would copy the latents once a head.
        query_latent = torch.einsum("bhtn,hnr->bhtr", query_nope, key_up)
        contexts = []
        for begin, end in spans.pieces(self.n_heads):
            queries, rope_queries = query_latent[:, :, begin:end], query_rope[:, :, begin:end]
            held, stop = (self.n_heads, end - begin), spans.stop(end)
            scores = queries.flatten(1, 2) @ latent[:, :stop].mT + rope_queries.flatten(1, 2) @ rope_key[:, :stop].mT
            scores = scores.unflatten(1, held).float() * self.scale
            scores = scores.masked_fill(~spans.seen(begin, end), float("-inf"))
            context = scores.softmax(dim=-1).type_as(latent).flatten(1, 2) @ latent[:, :stop]
            contexts.append(context.unflatten(1, held))
        return torch.einsum("bhtr,hvr->bhtv", torch.cat(contexts, dim=2), value_up)


def _end_to_end(*parts: Tensor) -> Tensor:
    """Parts of heads [B, H, T, ·] side by side, all rows' tokens one after the other [B · T, H, Σ ·]."""
    return torch.cat([part.transpose(1, 2) for part in parts], dim=-1).flatten(0, 1)
