"""What every layer's attention goes by: rotary angles, and which tokens see which.

Suffixes as in `attention.py`.
"""

from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_modules.model.cache import LatentCache
from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.model.document_borders import DocumentBorders
from lightning_modules.model.key_spans import KeySpans
from lightning_modules.model.rotary import rotary_cos_sin
from lightning_modules.model.shared_rows import Sharing
from lightning_modules.model.within_borders import fits_borders


class AttentionInputs(NamedTuple):
    """What every layer's attention shares: rotary angles [B, T, P/2], and which keys each query sees.

    Spans of None mean plain causal attention. The keys' angles [1, S, P/2] are there where keys are rotated only
    once they have been expanded from the cache (see `LatentAttention`). Over a cache, `absorb` tells whether to attend
    over the latent itself or to expand it first. Where `stretches` (row, start, stop) are given, in order, attention
    runs over each by itself, causally, and yields zeros elsewhere. Where `borders` are, one kernel does the same on a
    GPU. With `key_borders`, keys are laid out otherwise than queries, and the last query sees the last key. With
    `sharing`, queries are this rank's part of rows whose keys come from all ranks, and have angles of their own.
    """

    cos: Tensor
    sin: Tensor
    spans: KeySpans | None = None
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
        by_stretch: attend to one document after another, whose borders the host then has to know, instead of by spans:
            time grows with the documents' squares, and not with the row's.
        borders: of the same documents; the same on a GPU, in 16 bits (see `fits_borders`).
    """
    index = torch.arange(document_ids.shape[1], device=document_ids.device)
    first = document_beginnings(document_ids)
    cos, sin = rotary_cos_sin(index - first if positions is None else positions, config)
    if borders is not None:
        return AttentionInputs(cos, sin, borders=borders)
    if by_stretch:
        return AttentionInputs(cos, sin, stretches=_stretches(document_ids))
    return AttentionInputs(cos, sin, KeySpans.of(index[None], len(index), first))


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
    return AttentionInputs(cos, sin)


def cached_inputs(
    config: DecoderConfig, cache: LatentCache, n_tokens: int, absorb: bool | None = None
) -> AttentionInputs:
    """Attention of `n_tokens` new tokens over the cache: row b's sit at positions lengths[b], lengths[b] + 1, …

    Many of them need no spans: where nothing is held before them, or on a GPU in 16 bits.

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
    inputs = AttentionInputs(*rotary_cos_sin(positions, config), absorb=absorb)
    if not config.qk_rope_head_dim:
        keys = torch.arange(extent, device=positions.device)
        key_cos, key_sin = rotary_cos_sin(keys[None], config)
        inputs = inputs._replace(key_cos=key_cos, key_sin=key_sin)
    if not absorb and extent == n_tokens:
        return inputs
    if not absorb and cache.rope_key.is_cuda and cache.rope_key.dtype.itemsize == 2 and fits_borders(config):
        of_new = DocumentBorders.of_beginnings(torch.full_like(cache.lengths, n_tokens), n_tokens)
        of_held = DocumentBorders.of_beginnings(cache.lengths + n_tokens, extent)
        return inputs._replace(borders=of_new, key_borders=of_held)
    return inputs._replace(spans=KeySpans.of(positions, extent))


def absorbing_is_cheaper(config: DecoderConfig, n_queries: int) -> bool:
    """Whether attending over the latent costs fewer operations than expanding it first.

    Per cached token and head, expanding costs R · (nope + value) once, and (nope + value) a query; absorbing costs
    2 · R a query. The rotary part is the same in both.
    """
    if config.qk_rope_head_dim == 0:
        return False
    expanded_width, rank = config.qk_nope_head_dim + config.v_head_dim, config.kv_lora_rank
    return n_queries * 2 * rank < (rank + n_queries) * expanded_width
