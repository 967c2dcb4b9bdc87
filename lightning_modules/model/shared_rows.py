"""Rows that several ranks share (context parallelism): each computes with a part, and sees the keys of the whole.

Suffixes: B rows, T tokens of each, P ranks, C = T / 2P tokens of a run.
"""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_modules.model.document_borders import DocumentBorders
from lightning_modules.model.key_spans import KeySpans


class SharedRows(ABC):
    """Every row cut into 2P runs, of which each rank holds two: the one from the front, and its mirror from the end.

    Early tokens see few others and late ones many: so all ranks have equally much to attend to. A rank's part of B rows
    is 2B rows of C tokens, the two runs of a row side by side.

    Args:
        rank: among those that share rows.
        n_ranks: P.
    """

    def __init__(self, rank: int, n_ranks: int) -> None:
        self.rank = rank
        self.n_ranks = n_ranks

    def starts(self, n_tokens: int) -> tuple[int, int]:
        """Where this rank's two runs begin in rows of `n_tokens`."""
        length = n_tokens // (2 * self.n_ranks)
        return self.rank * length, (2 * self.n_ranks - 1 - self.rank) * length

    def own(self, rows: Tensor, lookahead: int = 0) -> Tensor:
        """This rank's part [2B, C + lookahead, ...] of `rows` [B, T + lookahead, ...].

        Every run has the `lookahead` tokens with it that follow in the row, though they lie on other ranks.
        """
        n_tokens = rows.shape[1] - lookahead
        length = n_tokens // (2 * self.n_ranks) + lookahead
        return torch.stack([rows[:, start : start + length] for start in self.starts(n_tokens)], dim=1).flatten(0, 1)

    @abstractmethod
    def whole(self, part: Tensor) -> Tensor:
        """Rows [B, T, ...] of all ranks' parts [2B, C, ...]; gradients of all ranks are summed."""

    @abstractmethod
    def add_up(self, sums: Tensor) -> Tensor:
        """All ranks' `sums` together, without a gradient."""

    def joined(self, parts: Tensor) -> Tensor:
        """Rows [B, T, ...] from the parts of all ranks, one after the other [P · 2B, C, ...]."""
        early, late = parts.unflatten(0, (self.n_ranks, -1, 2)).unbind(dim=2)
        return torch.cat((*early.unbind(), *reversed(late.unbind())), dim=1)


class Run(NamedTuple):
    """What one run of every row may see.

    Attributes:
        stop: where it ends in its row; it sees nothing from there on.
        spans: the keys that its queries see; None: as the borders say.
        borders: of documents in the run, all rows' runs one after the other; those of others have no length.
        key_borders: of the same documents up to `stop`.
    """

    stop: int
    spans: KeySpans | None = None
    borders: DocumentBorders | None = None
    key_borders: DocumentBorders | None = None


def run_within_borders(borders: DocumentBorders, n_rows: int, n_tokens: int, start: int, length: int) -> Run:
    """The run [start, start + length) of every row, among documents with `borders` in rows of `n_tokens` each.

    A document that began before the run has more keys than queries: its last query sees its last key.
    """
    row = torch.div(borders.offsets, n_tokens, rounding_mode="floor")
    place, stop = borders.offsets - row * n_tokens, start + length
    # A border beyond the run has become one of its end, and that is where the next row begins.
    queries = row * length + (place - start).clamp(0, length)
    keys = row * stop + place.clamp(max=stop)
    return Run(
        stop,
        borders=DocumentBorders(queries, min(borders.longest, length)),
        key_borders=DocumentBorders(keys, min(borders.longest, stop)),
    )


def run_within_spans(first: Tensor, start: int, length: int) -> Run:
    """The run [start, start + length) of every row, whose tokens' documents begin at `first` [B or 1, T]."""
    stop = start + length
    places = torch.arange(start, stop, device=first.device)
    return Run(stop, spans=KeySpans.of(places[None], stop, first[:, start:stop]))


class Sharing(NamedTuple):
    """What attention has to know: the rows, and what this rank's two runs of each may see."""

    rows: SharedRows
    runs: tuple[Run, Run]
