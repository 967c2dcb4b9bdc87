"""Speculative decoding: the multi-token-prediction modules draft, the decoder verifies.

A round costs one pass of each module and one of the decoder, over as many tokens as there are modules and one more,
and adds from one token to that many to a row. The tokens are those of plain decoding: the very same when greedy, and of
the same distribution when sampled (Leviathan et al., arXiv 2211.17192, algorithm 1).

Suffixes: B rows, D depth of drafting, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_modules.model.attention_inputs import cached_inputs
from lightning_modules.model.cache import LatentCache
from lightning_modules.model.decoder import Decoder
from lightning_modules.model.decoding.prefill import extend_in_chunks, rows_of
from lightning_modules.model.decoding.sampling import TokenSource, allow, draw, sample, token_probabilities
from lightning_modules.model.decoding.state import DRAFTING, DRAWING, JUDGING, RowState
from lightning_modules.model.decoding.step import RowStep


@dataclass
class Acceptance:
    """How many drafted tokens the decoder accepted, counted while tokens are generated."""

    n_rounds: int = 0
    n_drafted: int = 0
    n_accepted: int = 0

    def count(self, depth: int, n_accepted: int) -> None:
        """Count a round of one row."""
        self.n_rounds += 1
        self.n_drafted += depth
        self.n_accepted += n_accepted

    @property
    def rate(self) -> float:
        """Accepted tokens per drafted one (0 when none was drafted)."""
        return self.n_accepted / self.n_drafted if self.n_drafted else 0.0

    @property
    def tokens_per_round(self) -> float:
        """Tokens that one pass of the decoder yields, on average; 1 without speculation."""
        return 1 + self.n_accepted / self.n_rounds if self.n_rounds else 1.0


@dataclass(frozen=True)
class Speculation:
    """Rounds of drafting and verifying, over all rows at once; each row accepts as many tokens as it does.

    Module k stands at the decoder's positions, reads there what module k − 1 made of them and the token k further on,
    and drafts the token k + 1 further on. At the last positions modules read drafts, which may be refused: the modules
    run in every round over the last 2 D positions, which are all that a round before can have left unsettled.

    Attributes:
        decoder: the model, with D multi-token-prediction modules.
        source: how tokens are drawn, by the decoder and by the modules alike.
        cache: of the decoder.
        extend: the decoder's step.
        drafting_cache: of the modules, a layer each.
        recent: [B, 2 D, hidden] the decoder's hidden states at the last positions that `cache` holds.
    """

    decoder: Decoder
    source: TokenSource
    cache: LatentCache
    extend: RowStep
    drafting_cache: LatentCache
    recent: Tensor

    @classmethod
    def over(cls, decoder: Decoder, source: TokenSource, cache: LatentCache, extend: RowStep) -> Self:
        """Speculation over rows whose latents are in `cache`, with room for as many drafts beside it.

        Raises:
            ValueError: when the decoder cannot draft.
        """
        depth = len(decoder.mtp)
        if not depth:
            raise ValueError(
                "Speculative decoding drafts with multi-token prediction; set model.num_nextn_predict_layers."
            )
        n_rows = cache.latent.shape[1]
        recent = cache.rope_key.new_zeros(n_rows, 2 * depth, decoder.config.hidden_size)
        return cls(decoder, source, cache, extend, cache.like(decoder.config, n_rows, cache.capacity, depth), recent)

    @property
    def depth(self) -> int:
        """How many tokens are drafted in a round."""
        return len(self.decoder.mtp)

    @property
    def width(self) -> int:
        """See `Program`."""
        return self.depth + 1

    @property
    def room(self) -> int:
        """See `Program`."""
        return self.cache.capacity - self.width

    def first(self, n_rows: int) -> Self:
        """See `Program`."""
        return replace(
            self,
            cache=self.cache.first_rows(n_rows),
            drafting_cache=self.drafting_cache.first_rows(n_rows),
            recent=self.recent[:n_rows],
        )

    def prefill(
        self,
        rows: Sequence[int],
        tokens: Tensor,
        lengths: Sequence[int],
        n_held: Sequence[int],
        chunk_size: int | None,
    ) -> None:
        """See `Program`."""
        config, width = self.decoder.config, tokens.shape[1]
        n_known, start = torch.tensor(lengths, device=tokens.device), 0
        recent = self.recent.new_zeros(len(rows), *self.recent.shape[1:])
        # What comes behind the prompt is not known yet; the first round computes its last positions again.
        ahead = F.pad(tokens, (0, self.depth))
        with (
            rows_of(self.cache, config, rows, n_held, width) as cache,
            rows_of(self.drafting_cache, config, rows, n_held, width) as drafting_cache,
        ):
            for hidden in extend_in_chunks(self.decoder, tokens, cache, chunk_size):
                recent = _last_states(recent, hidden, n_known - start)
                self._run_modules(hidden, ahead[:, start:], drafting_cache)
                start += hidden.shape[1]
        self.recent[torch.tensor(rows, device=tokens.device)] = recent

    def step(self, state: RowState, longest: int) -> None:
        """See `Program`."""
        draft = self._draft(state, longest)
        places = state.next_places(self.width)
        drafted = state.tokens.gather(1, places[:, :-1])
        self.cache.hold(state.held(), longest)
        hidden = self.extend(torch.cat((state.last_tokens(), drafted), dim=1), self.cache)
        target = allow(self.extend.score(hidden), self.source.allowed, places)
        if self.source.sampling.temperature == 0:
            tokens, n_accepted = agree(drafted, target.argmax(dim=-1))
        else:
            p, q = (token_probabilities(logits, self.source.sampling) for logits in (target, draft))
            judging, drawing = state.chances_of(JUDGING, places[:, :-1]), state.chances_of(DRAWING, places)
            tokens, n_accepted = verify(drafted, q, p, judging, drawing)
        self.recent.copy_(_rows_from(torch.cat((self.recent, hidden), dim=1), n_accepted + 1, 2 * self.depth))
        state.add(tokens, n_accepted + 1, self.source.end_token)

    def _draft(self, state: RowState, longest: int) -> Tensor:
        """Let `state` have tokens that may come next, and return the logits [B, D, V] that they were drawn from."""
        held, n_recent = state.held(), 2 * self.depth
        first = (held - n_recent).clamp_min(0)
        hidden = _rows_from(self.recent, first - (held - n_recent), n_recent)
        last = (held - 1 - first).clamp_min(0)
        self.drafting_cache.hold(first, max(longest - n_recent, 0))
        ahead = (state.lengths - 1 - held + first)[:, None] + torch.arange(n_recent, device=first.device)
        places, draft = state.next_places(self.depth), []
        for k, place in enumerate(places.split(1, dim=1), start=1):
            hidden = self.extend.ahead(k, hidden, state.tokens.gather(1, ahead + k), self.drafting_cache)
            logits = self.extend.score(_rows_from(hidden, last, 1))
            draft.append(allow(logits, self.source.allowed, place))
            chances = state.chances_of(DRAFTING, place)
            state.tokens.scatter_(1, place, sample(draft[-1], self.source.sampling, chances))
        return torch.cat(draft, dim=1)

    def _run_modules(self, hidden: Tensor, tokens: Tensor, cache: LatentCache) -> None:
        """Append positions with the decoder's states `hidden` [B, T, ·] and `tokens` [B, T + D or more] to `cache`."""
        n_tokens = hidden.shape[1]
        inputs = cached_inputs(self.decoder.config, cache, n_tokens)
        for k in range(1, self.width):
            hidden = self.decoder.extend_ahead(k, hidden, tokens[:, k : k + n_tokens], inputs, cache)
        cache.advance(n_tokens)


def agree(drafted: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Keep the drafted tokens [B, D] as long as they are those that the decoder has chosen [B, D + 1]: as `verify`."""
    return chosen, (drafted == chosen[:, :-1]).cumprod(dim=1).sum(dim=1)


def verify(drafted: Tensor, draft: Tensor, target: Tensor, judging: Tensor, drawing: Tensor) -> tuple[Tensor, Tensor]:
    """Keep the drafted tokens that the decoder agrees with, and add one token of its own.

    A token x drawn from q is kept with probability min(1, p(x) / q(x)); at the first refusal one is drawn from
    max(0, p − q), normalised, instead, and after the last acceptance one from p. What comes out is distributed as p.

    Args:
        drafted: [B, D] tokens.
        draft: q, the distributions [B, D, V] that they were drawn from.
        target: p, the decoder's distributions [B, D + 1, V] at the same places and the one after.
        judging: chances [B, D] by which drafts are kept.
        drawing: chances [B, D + 1] by which the decoder draws, of which each row needs one.

    Returns:
        Tokens [B, D + 1], the first so many of which are drafts, and the next the decoder's own; how many [B].
    """
    p = target[:, :-1].gather(2, drafted[..., None])[..., 0]
    q = draft.gather(2, drafted[..., None])[..., 0]
    n_accepted = (judging * q < p).long().cumprod(dim=1).sum(dim=1)
    remaining = _rows_from(target, n_accepted, 1)
    # Behind the last draft stands one of nothing, of which all of p is in excess.
    excess = (remaining - _rows_from(F.pad(draft, (0, 0, 0, 1)), n_accepted, 1)).clamp_min(0)
    # p and q may differ by rounding alone: then nothing of p is in excess, and p itself is as good.
    remaining = torch.where((excess > 0).any(dim=-1, keepdim=True), excess, remaining)
    own = draw(remaining, drawing.gather(1, n_accepted[:, None]))
    return F.pad(drafted, (0, 1)).scatter(1, n_accepted[:, None], own), n_accepted


def _rows_from(values: Tensor, starts: Tensor, n: int) -> Tensor:
    """From each row of `values` [B, T, N], `n` vectors from its start [B] on, or the last where there are no more."""
    index = (starts[:, None] + torch.arange(n, device=starts.device)).clamp_max(values.shape[1] - 1)
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[2]))


def _last_states(recent: Tensor, hidden: Tensor, n_known: Tensor) -> Tensor:
    """The last vectors of each row, as many as `recent` [B, N, ·] has, once the first `n_known` [B] of `hidden`
    [B, T, ·] have followed those.
    """
    return _rows_from(torch.cat((recent, hidden), dim=1), n_known.clamp(0, hidden.shape[1]), recent.shape[1])
