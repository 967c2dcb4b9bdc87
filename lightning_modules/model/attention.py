"""Multi-head Latent Attention (arXiv 2412.19437, section 2.1.1).

Suffixes: B batch, T query tokens, S key tokens, H heads, R latent rank, P rotary dimensions.
"""

from functools import partial
from itertools import groupby
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.varlen import varlen_attn

from lightning_modules.model import by_hand
from lightning_modules.model.attention_kept import attention_kept
from lightning_modules.model.by_hand.attention import attend
from lightning_modules.model.cache import LatentCache
from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.model.document_borders import DocumentBorders
from lightning_modules.model.norm import RMSNorm
from lightning_modules.model.rotary import attention_scale, rotary_cos_sin, rotate
from lightning_modules.model.shared_rows import Run, Sharing

# DeepSeek's code and transformers normalise the latents with this constant, whatever rms_norm_eps says.
LATENT_NORM_EPS = 1e-6
# Of FlashAttention's kernels.
WIDEST_HEAD = 256


class AttentionInputs(NamedTuple):
    """What every layer's attention shares: rotary angles [B, T, P/2], and who may see whom [B, 1, T, S].

    A mask of None means plain causal attention. The keys' angles [1, S, P/2] are there where keys are rotated only
    once they have been expanded from the cache (see `LatentAttention`). Over a cache, `absorb` tells whether to attend
    over the latent itself or to expand it first. Where `stretches` (row, start, stop) are given, in order, attention
    runs over each by itself, causally, and yields zeros elsewhere. Where `borders` are, one kernel does the same on a
    GPU. With `key_borders`, keys are laid out otherwise than queries, and the last query sees the last key. With
    `sharing`, queries are this rank's part of rows whose keys come from all ranks, and have angles of their own.
    """

    cos: Tensor
    sin: Tensor
    mask: Tensor | None
    key_cos: Tensor | None = None
    key_sin: Tensor | None = None
    absorb: bool = False
    stretches: tuple[tuple[int, int, int], ...] | None = None
    borders: DocumentBorders | None = None
    key_borders: DocumentBorders | None = None
    sharing: Sharing | None = None

    def key_angles(self) -> tuple[Tensor, Tensor]:
        """Cosines and sines at the keys' positions: the queries' own where nothing is cached."""
        if self.key_cos is None or self.key_sin is None:
            return self.cos, self.sin
        return self.key_cos, self.key_sin


def packed_inputs(
    config: DecoderConfig,
    document_ids: Tensor,
    positions: Tensor | None = None,
    by_stretch: bool = False,
    borders: DocumentBorders | None = None,
) -> AttentionInputs:
    """Attention within documents: a token sees earlier tokens of its own document.

    Args:
        config: the decoder's architecture.
        document_ids: [B, T]; equal numbers side by side are one document, negative ones padding.
        positions: [B, T] of each token in its document; None counts from where the document begins in its row.
        by_stretch: attend to one document after another, whose borders the host then has to know, instead of by a mask:
            time and memory grow with the documents' squares, and not with the row's.
        borders: of the same documents; the same on a GPU, in 16 bits (see `fits_borders`).
    """
    index = torch.arange(document_ids.shape[1], device=document_ids.device)
    first = document_beginnings(document_ids)
    cos, sin = rotary_cos_sin(index - first if positions is None else positions, config)
    if borders is not None:
        return AttentionInputs(cos, sin, None, borders=borders)
    if by_stretch:
        return AttentionInputs(cos, sin, None, stretches=_stretches(document_ids))
    # Two tokens of one document share its first position, even where a document id comes back later in the row.
    same_document = first[:, :, None] == first[:, None, :]
    causal = index[:, None] >= index[None, :]
    return AttentionInputs(cos, sin, (same_document & causal)[:, None])


def document_beginnings(document_ids: Tensor) -> Tensor:
    """Where in its row the document of every token begins [B, T]."""
    index = torch.arange(document_ids.shape[1], device=document_ids.device)
    starts = torch.zeros_like(document_ids, dtype=torch.bool)
    starts[:, 1:] = document_ids[:, 1:] != document_ids[:, :-1]
    return torch.where(starts, index, 0).cummax(dim=1).values


def _stretches(document_ids: Tensor) -> tuple[tuple[int, int, int], ...]:
    """(row, start, stop) of every document, without padding."""
    found: list[tuple[int, int, int]] = []
    for row, ids in enumerate(document_ids.tolist()):
        start = 0
        for number, group in groupby(ids):
            stop = start + sum(1 for _ in group)
            if number >= 0:
                found.append((row, start, stop))
            start = stop
    return tuple(found)


def causal_inputs(config: DecoderConfig, batch_size: int, n_tokens: int, device: torch.device) -> AttentionInputs:
    """Plain causal attention over whole rows."""
    positions = torch.arange(n_tokens, device=device).expand(batch_size, -1)
    cos, sin = rotary_cos_sin(positions, config)
    return AttentionInputs(cos, sin, None)


def cached_inputs(
    config: DecoderConfig, cache: LatentCache, n_tokens: int, absorb: bool | None = None
) -> AttentionInputs:
    """Attention of `n_tokens` new tokens over the cache: row b's sit at positions lengths[b], lengths[b] + 1, …

    Many of them need no mask [T, S]: where nothing is held before them, or on a GPU in 16 bits.

    Args:
        config: the decoder's architecture.
        cache: what is attended to.
        n_tokens: T, the same for all rows.
        absorb: whether to attend over the latents themselves or to expand them; None takes whichever costs less.

    Raises:
        ValueError: when `absorb` is asked of a decoder that rotates whole heads.
    """
    if absorb and not config.qk_rope_head_dim:
        raise ValueError("Attention cannot be absorbed with qk_rope_head_dim 0; leave `absorb` to None or False.")
    if absorb is None:
        absorb = absorbing_is_cheaper(config, n_tokens)
    positions, extent = cache.positions(n_tokens), cache.extent(n_tokens)
    keys = torch.arange(extent, device=positions.device)
    inputs = AttentionInputs(*rotary_cos_sin(positions, config), mask=None, absorb=absorb)
    if not config.qk_rope_head_dim:
        key_cos, key_sin = rotary_cos_sin(keys[None], config)
        inputs = inputs._replace(key_cos=key_cos, key_sin=key_sin)
    if not absorb and extent == n_tokens:
        return inputs
    if not absorb and cache.rope_key.is_cuda and cache.rope_key.dtype.itemsize == 2 and fits_borders(config):
        of_new = DocumentBorders.of_beginnings(torch.full_like(cache.lengths, n_tokens), n_tokens)
        of_held = DocumentBorders.of_beginnings(cache.lengths + n_tokens, extent)
        return inputs._replace(borders=of_new, key_borders=of_held)
    return inputs._replace(mask=(keys <= positions[:, :, None])[:, None])


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
            return self.o_proj(self._attend_over_ranks(hidden, inputs).flatten(2))
        if cache is None and self._has_kernels(hidden, inputs):
            return self.o_proj(self._attend_in_kernels(hidden, inputs).flatten(2))
        query_nope, query_rope = self._query(hidden, inputs)
        latent, rope_key = self._latent(self.kv_a_proj_with_mqa(hidden), inputs)
        if cache is not None:
            latent, rope_key = cache.append(layer, latent, rope_key)
        if inputs.absorb:
            heads = self._attend_absorbed(query_nope, query_rope, latent, rope_key, inputs.mask)
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
        if inputs.mask is None and query.requires_grad and by_hand.applies_to(query):
            rows = tuple((row, 0, query.shape[2]) for row in range(query.shape[0]))
            return attend(query, key, value, self.scale, rows if inputs.stretches is None else inputs.stretches)
        if inputs.stretches is not None:
            return self._attend_by_stretch(query, key, value, inputs.stretches)
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask=inputs.mask, is_causal=inputs.mask is None, scale=self.scale
        )

    def _expand(self, latent: Tensor, rope_key: Tensor, inputs: AttentionInputs) -> tuple[Tensor, Tensor, Tensor]:
        """Keys of every head [B, H, S, nope], behind each of them [B, H, S, P], and values [B, H, S, value_dim]."""
        expanded = self.kv_b_proj(latent).unflatten(-1, (self.n_heads, -1)).transpose(1, 2)
        key_nope, value = expanded.split((self.nope_dim, self.value_dim), dim=-1)
        if self.rope_dim == 0:
            cos, sin = inputs.key_angles()
            key_nope = rotate(key_nope, cos[:, None], sin[:, None], self.interleaves)
        return key_nope, rope_key[:, None].expand(-1, self.n_heads, -1, -1), value

    def _has_kernels(self, hidden: Tensor, inputs: AttentionInputs) -> bool:
        """Whether kernels rotate the heads: in 16 bits, where a power of two of dimensions turn, and without a mask."""
        is_power_of_2 = self.rope_dim > 1 and self.rope_dim.bit_count() == 1
        takes_kernels = hidden.is_cuda and hidden.dtype.itemsize == 2 and is_power_of_2 and self.nope_dim > 0
        return takes_kernels and inputs.mask is None and inputs.stretches is None

    def _attend_in_kernels(self, hidden: Tensor, inputs: AttentionInputs) -> Tensor:
        """As `_attend_expanded`, but [B, T, H, value_dim]: heads stay as they come, side by side for each token."""
        query = self._query_in_kernels(hidden, inputs)
        key, value = self._expand_in_kernels(self.kv_a_proj_with_mqa(hidden), inputs)
        if inputs.borders is not None:
            tokens = (query.flatten(0, 1), key.flatten(0, 1), value.flatten(0, 1))
            heads = attend_within_borders(*tokens, inputs.borders, inputs.key_borders or inputs.borders, self.scale)
            return heads.unflatten(0, hidden.shape[:2])
        query, key, value = (heads.transpose(1, 2) for heads in (query, key, value))
        return F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=self.scale).transpose(1, 2)

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

    def _attend_over_ranks(self, hidden: Tensor, inputs: AttentionInputs) -> Tensor:
        """From this rank's part of rows [2B, C, D] to all of them, as all ranks hold them; [2B, C, H, value_dim].

        What travels is what `kv_a_proj_with_mqa` makes of a token: keys and values of all heads are many times as much.
        Every rank expands all of them, and once more for the backward pass.
        """
        has_kernels = self._has_kernels(hidden, inputs)
        if has_kernels:
            query = self._query_in_kernels(hidden, inputs)
        else:
            query = torch.cat(self._query(hidden, inputs), dim=-1).transpose(1, 2)
        attend = partial(self._gather_and_attend, inputs=inputs, in_kernels=has_kernels)
        return attention_kept(attend, query, self.kv_a_proj_with_mqa(hidden))

    def _gather_and_attend(
        self, query: Tensor, compressed: Tensor, inputs: AttentionInputs, in_kernels: bool
    ) -> Tensor:
        """From queries [2B, C, H, nope + P] to what `compressed` [2B, C, R + P] of all ranks stands for."""
        assert inputs.sharing is not None
        compressed = inputs.sharing.rows.whole(compressed)
        if in_kernels:
            key, value = self._expand_in_kernels(compressed, inputs)
        else:
            key_nope, shared_key, value = self._expand(*self._latent(compressed, inputs), inputs)
            key, value = torch.cat((key_nope, shared_key), dim=-1).transpose(1, 2), value.transpose(1, 2)
        queries = query.unflatten(0, (-1, 2)).unbind(dim=1)
        heads = [
            attend_run(queries_of_run, key, value, run, self.scale)
            for queries_of_run, run in zip(queries, inputs.sharing.runs, strict=True)
        ]
        return torch.stack(heads, dim=1).flatten(0, 1)

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
                parts[row].append(
                    F.scaled_dot_product_attention(query[one], key[one], value[one], is_causal=True, scale=self.scale)
                )
            ends[row] = stop
        return torch.cat([torch.cat(row_parts, dim=2) for row_parts in parts])

    def _attend_absorbed(
        self, query_nope: Tensor, query_rope: Tensor, latent: Tensor, rope_key: Tensor, mask: Tensor | None
    ) -> Tensor:
        """Attend over the latent itself: W_UK moves into the query and W_UV into the output.

        The same numbers as the expanded form, by associativity, without keys and values ever existing per head.
        """
        up = self.kv_b_proj.weight.unflatten(0, (self.n_heads, -1))
        key_up, value_up = up.split((self.nope_dim, self.value_dim), dim=1)
        # Heads are rows of one product, for broadcasting would copy the latents once a head.
        query_latent = torch.einsum("bhtn,hnr->bhtr", query_nope, key_up)
        scores = query_latent.flatten(1, 2) @ latent.mT + query_rope.flatten(1, 2) @ rope_key.mT
        scores = scores.unflatten(1, query_nope.shape[1:3]).float() * self.scale
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        context = scores.softmax(dim=-1).type_as(latent).flatten(1, 2) @ latent
        return torch.einsum("bhtr,hvr->bhtv", context.unflatten(1, query_nope.shape[1:3]), value_up)


def absorbing_is_cheaper(config: DecoderConfig, n_queries: int) -> bool:
    """Whether attending over the latent costs fewer operations than expanding it first.

    Per cached token and head, expanding costs R · (nope + value) once, and (nope + value) a query; absorbing costs
    2 · R a query. The rotary part is the same in both.
    """
    if config.qk_rope_head_dim == 0:
        return False
    expanded_width, rank = config.qk_nope_head_dim + config.v_head_dim, config.kv_lora_rank
    return n_queries * 2 * rank < (rank + n_queries) * expanded_width


def fits_borders(config: DecoderConfig) -> bool:
    """Whether the kernel that attends within borders knows heads of such widths."""
    width = max(config.qk_head_dim, config.v_head_dim)
    return width <= WIDEST_HEAD and width % 8 == 0


def _end_to_end(*parts: Tensor) -> Tensor:
    """Parts of heads [B, H, T, ·] side by side, all rows' tokens one after the other [B · T, H, Σ ·]."""
    return torch.cat([part.transpose(1, 2) for part in parts], dim=-1).flatten(0, 1)


def attend_run(query: Tensor, key: Tensor, value: Tensor, run: Run, scale: float) -> Tensor:
    """From a run of every row [B, C, H, D] to keys [B, T, H, D] and values [B, T, H, V] up to its end: [B, C, H, V]."""
    key, value = key[:, : run.stop], value[:, : run.stop]
    if run.borders is not None and run.key_borders is not None:
        tokens = (query.flatten(0, 1), key.flatten(0, 1), value.flatten(0, 1))
        heads = attend_within_borders(*tokens, run.borders, run.key_borders, scale)
        return heads.unflatten(0, query.shape[:2])
    query, key, value = (heads.transpose(1, 2) for heads in (query, key, value))
    return F.scaled_dot_product_attention(query, key, value, attn_mask=run.mask, scale=scale).transpose(1, 2)


def attend_within_borders(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    borders: DocumentBorders,
    key_borders: DocumentBorders,
    scale: float,
) -> Tensor:
    """Causal attention of every document by itself: [N, H, D] and, for the value, [M, H, V] give [N, H, V].

    Of a document that has more keys than queries, the last query sees all keys.
    """
    width = max(query.shape[-1], value.shape[-1])
    # The kernel knows heads of one width; zeros change no score, and give zeros.
    query, key, padded = (F.pad(x, (0, width - x.shape[-1])) for x in (query, key, value))
    (offsets, longest), (key_offsets, longest_key) = borders, key_borders
    heads = varlen_attn(
        query, key, padded, offsets, key_offsets, longest, longest_key, scale=scale, window_size=(-1, 0)
    )
    assert isinstance(heads, Tensor)
    return heads[..., : value.shape[-1]]
