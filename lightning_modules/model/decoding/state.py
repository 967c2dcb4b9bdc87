"""What a step of decoding reads and writes: rows of fixed shape, on the device alone."""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from lightning_modules.model.decoding.noise import uniform

# What a random number at a place is for: to draw the token there, to draft it, or to judge the draft.
USES = DRAWING, DRAFTING, JUDGING = range(3)


@dataclass(frozen=True)
class RowState:
    """Rows that are continued together. No step changes a shape, and none asks the host.

    A step feeds the last token of every row, which the cache does not hold yet, and adds one or more after it.

    Attributes:
        tokens: [B, capacity] of the prompts and those added.
        lengths: [B] how many of them count, at least one.
        offsets: [B] how many of those the cache does not hold: the last, and before it those that a window has left.
        limits: [B] lengths at which rows end; no more than its length where a row has ended, or nobody sits.
        chances: [uses, B, capacity] FP32 random numbers of every place (see `noise`).
        said: [B, 3 + width] what the last step added: how many tokens, how many it would have without an end or limit,
            how many may follow, and the tokens, the first of which count.
    """

    tokens: Tensor
    lengths: Tensor
    offsets: Tensor
    limits: Tensor
    chances: Tensor
    said: Tensor

    @classmethod
    def empty(cls, n_rows: int, capacity: int, width: int, device: torch.device) -> "RowState":
        """Rows in which nobody sits, of up to `capacity` tokens, to which a step may add `width`."""
        # What a step tries beyond the last token of a full row does not count, but is read and written.
        places = capacity + 3 * width
        return cls(
            tokens=torch.zeros(n_rows, places, dtype=torch.long, device=device),
            lengths=torch.ones(n_rows, dtype=torch.long, device=device),
            offsets=torch.ones(n_rows, dtype=torch.long, device=device),
            limits=torch.ones(n_rows, dtype=torch.long, device=device),
            chances=torch.zeros(len(USES), n_rows, places, device=device),
            said=torch.zeros(n_rows, 3 + width, dtype=torch.long, device=device),
        )

    def first(self, n_rows: int) -> "RowState":
        """The first rows, in the same memory."""
        views = {field.name: getattr(self, field.name)[:n_rows] for field in fields(self)}
        return RowState(**views | {"chances": self.chances[:, :n_rows]})

    def seat(
        self, rows: Tensor, tokens: Tensor, lengths: Tensor, offsets: Tensor, limits: Tensor, seeds: Tensor
    ) -> None:
        """Let prompts `tokens` [N, T], each `lengths` [N] long, begin in the numbered `rows` [N]."""
        places = torch.arange(self.tokens.shape[1], device=rows.device)
        self.tokens[rows, : tokens.shape[1]] = tokens
        self.lengths[rows], self.offsets[rows], self.limits[rows] = lengths, offsets, limits
        for use in USES:
            self.chances[use, rows] = uniform(seeds[:, None], places, use)

    def move(self, rows: Tensor, offsets: Tensor) -> None:
        """Move the windows of the numbered `rows` [N]; those that have ended stay."""
        self.offsets[rows] = torch.where(self.lengths[rows] < self.limits[rows], offsets, self.offsets[rows])

    def vacate(self, row: int) -> None:
        """Add nothing more to a row, and look at no more of it than at an empty one."""
        self.lengths[row], self.offsets[row], self.limits[row] = 1, 1, 1

    def held(self) -> Tensor:
        """How many tokens of each row the cache holds [B]."""
        return self.lengths - self.offsets

    def last_tokens(self) -> Tensor:
        """The last token of each row [B, 1]."""
        return self.tokens.gather(1, self.lengths[:, None] - 1)

    def next_places(self, n: int) -> Tensor:
        """Where in its row each of the next `n` tokens will stand [B, n]."""
        first = self.lengths[:, None]
        return first if n == 1 else first + torch.arange(n, device=first.device)

    def chances_of(self, use: int, places: Tensor) -> Tensor:
        """The random numbers for a use at `places` [B, N] of each row [B, N]."""
        return self.chances[use].gather(1, places)

    def add(self, tokens: Tensor, n_added: Tensor, end_token: int | None) -> None:
        """Add to each row the first `n_added` [B] of `tokens` [B, width], up to its end or limit.

        What stands beyond a row's length counts for nothing.
        """
        self.tokens.scatter_(1, self.next_places(tokens.shape[1]), tokens)
        n_counted = torch.minimum(self.limits - self.lengths, n_added).clamp_min(0)
        if end_token is None:
            self.lengths.add_(n_counted)
        else:
            n_before_end = (tokens != end_token).cumprod(dim=1).sum(dim=1)
            n_counted = torch.minimum(n_counted, n_before_end + 1)
            self.lengths.add_(n_counted)
            torch.where(n_before_end < n_counted, self.lengths, self.limits, out=self.limits)
        numbers = torch.stack((n_counted, n_added, self.limits - self.lengths), dim=1)
        torch.cat((numbers, tokens), dim=1, out=self.said)
