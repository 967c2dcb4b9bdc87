"""What a step computes: the one next token of every row."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, Self

import torch
from torch import Tensor

from lightning_modules.model.cache import LatentCache
from lightning_modules.model.decoder import Decoder
from lightning_modules.model.decoding.prefill import remember, rows_of
from lightning_modules.model.decoding.sampling import TokenSource
from lightning_modules.model.decoding.state import DRAWING, RowState
from lightning_modules.model.decoding.step import RowStep


class Program(Protocol):
    """A way to continue rows, with what it remembers of them."""

    @property
    def width(self) -> int:
        """Tokens that a step may add to a row."""
        ...

    @property
    def room(self) -> int:
        """Tokens that a row may hold in the cache before a step."""
        ...

    def first(self, n_rows: int) -> Self:
        """The same of the first rows, in the same memory."""
        ...

    def prefill(
        self,
        rows: Sequence[int],
        tokens: Tensor,
        lengths: Sequence[int],
        n_held: Sequence[int],
        chunk_size: int | None,
    ) -> None:
        """Remember what the numbered rows begin with.

        Args:
            rows: N rows; where they hold tokens already, all there are.
            tokens: [N, T], shorter ones padded on the right.
            lengths: how many of them are real, of each row.
            n_held: how many tokens each row holds before them.
            chunk_size: tokens of a row computed at a time; None takes all at once.
        """
        ...

    def step(self, state: RowState, longest: int) -> None:
        """Add tokens to all rows, of which none has more than `longest` in the cache."""
        ...


@dataclass(frozen=True)
class NextToken:
    """One pass of the decoder adds one token to every row."""

    decoder: Decoder
    source: TokenSource
    cache: LatentCache
    extend: RowStep

    width = 1

    @property
    def room(self) -> int:
        """See `Program`."""
        return self.cache.capacity - self.width

    def first(self, n_rows: int) -> Self:
        """The same of the first rows, in the same memory."""
        return replace(self, cache=self.cache.first_rows(n_rows))

    def prefill(
        self,
        rows: Sequence[int],
        tokens: Tensor,
        lengths: Sequence[int],
        n_held: Sequence[int],
        chunk_size: int | None,
    ) -> None:
        """See `Program`."""
        with rows_of(self.cache, self.decoder.config, rows, n_held, tokens.shape[1]) as cache:
            remember(self.decoder, tokens, cache, chunk_size)

    def step(self, state: RowState, longest: int) -> None:
        """See `Program`."""
        self.cache.hold(state.held(), longest)
        hidden = self.extend(state.last_tokens(), self.cache)
        add_drawn(state, self.extend.score(hidden[:, -1]), self.source)


def add_drawn(state: RowState, logits: Tensor, source: TokenSource) -> None:
    """Draw a token for each row from its logits [B, V], and add it."""
    if logits.is_cuda:
        from lightning_modules.model.kernels import next_token

        if logits.shape[1] <= next_token.LARGEST_VOCABULARY:
            chances = state.chances[DRAWING]
            rows = (state.tokens, state.lengths, state.limits, chances, state.said)
            next_token.add_next_tokens(logits, source.sampling, source.allowed, source.end_token, *rows)
            return
    chances = state.chances_of(DRAWING, state.next_places(1))[:, 0]
    drawn = source.draw(logits, state.lengths, chances)
    state.add(drawn[:, None], torch.ones_like(drawn), source.end_token)
