"""Which keys queries see, where one mask of all of them would be too large: a piece of the queries at a time.

Suffixes: B rows, H heads, T queries of a row, S keys of it.
"""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from lightning_modules.model.fused_attention import fused_attention

# Numbers of the largest mask, and of the largest scores in FP32, that ever exist at once: 256 MiB of the latter.
LARGEST = 2**26
# Kernels read masks whose rows begin at multiples of as many numbers.
ALIGNMENT = 16


class KeySpans(NamedTuple):
    """The keys that each query sees, which lie side by side; queries are the last T of S tokens, or before these.

    Attributes:
        last: [B or 1, T] the last key that a query sees.
        n_keys: S.
        first: [B or 1, T] the first; None: the row's.
        mask: [B or 1, 1, T, S] all this written out, where it has at most LARGEST numbers.
    """

    last: Tensor
    n_keys: int
    first: Tensor | None = None
    mask: Tensor | None = None

    @classmethod
    def of(cls, last: Tensor, n_keys: int, first: Tensor | None = None) -> "KeySpans":
        """Spans, with their mask if it is small."""
        spans = cls(last, n_keys, first)
        is_small = spans.n_rows * last.shape[1] * n_keys <= LARGEST
        return spans._replace(mask=spans.seen(0, last.shape[1])) if is_small else spans

    @property
    def n_rows(self) -> int:
        """B, or 1 where all rows see alike."""
        return max(len(self.last), 1 if self.first is None else len(self.first))

    def pieces(self, n_heads: int = 1) -> Iterator[tuple[int, int]]:
        """Where runs of queries begin and end that have at most LARGEST scores, for as many heads."""
        n_queries, width = self.last.shape[1], self.n_rows * n_heads * self.n_keys
        length = max(LARGEST // width // ALIGNMENT * ALIGNMENT, ALIGNMENT)
        for begin in range(0, n_queries, length):
            yield begin, min(begin + length, n_queries)

    def stop(self, end: int) -> int:
        """Where the keys end that queries before `end` see."""
        return self.n_keys - self.last.shape[1] + end

    def seen(self, begin: int, end: int) -> Tensor:
        """Which keys before `stop(end)` the queries from `begin` up to `end` see [B or 1, 1, Q, stop]."""
        stop = self.stop(end)
        if self.mask is not None:
            return self.mask[:, :, begin:end, :stop]
        keys = torch.arange(stop, device=self.last.device)
        seen = keys <= self.last[:, begin:end, None]
        if self.first is not None:
            seen = seen & (self.first[:, begin:end, None] <= keys)
        return seen[:, None]


def attend_spans(query: Tensor, key: Tensor, value: Tensor, spans: KeySpans, scale: float) -> Tensor:
    """Attention within spans: [B, H, T, D], keys [B, H, S, D] and values [B, H, S, V] give [B, H, T, V].

    For the backward pass a piece keeps neither mask nor scores, and attends once more.
    """
    if spans.mask is not None:
        return fused_attention(query, key, value, scale, spans.mask)
    heads = []
    for begin, end in spans.pieces():
        stop = spans.stop(end)
        attend = partial(_attend_piece, spans=spans, begin=begin, end=end, scale=scale)
        inputs = query[:, :, begin:end], key[:, :, :stop], value[:, :, :stop]
        heads.append(checkpoint(attend, *inputs, use_reentrant=False, preserve_rng_state=False))
    return torch.cat(heads, dim=2)


def _attend_piece(
    query: Tensor, key: Tensor, value: Tensor, spans: KeySpans, begin: int, end: int, scale: float
) -> Tensor:
    return fused_attention(query, key, value, scale, spans.seen(begin, end))
