"""Documents as batches of windows that a decoder computes at once."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lightning_modules.model.sliding import window_start
from lightning_modules.model.token_loss import IGNORED_TARGET
from lightning_modules.packing import Documents


class Window(NamedTuple):
    """A stretch of a document that is computed at once: inputs from `start` up to `stop`, scored from `first` on."""

    document: int
    start: int
    first: int
    stop: int


class Batch(NamedTuple):
    """Windows side by side.

    Attributes:
        tokens: what the decoder reads [B, T + D], D the depth of multi-token prediction.
        targets: the next token, and for every depth the one further on [1 + D, B, T]; IGNORED_TARGET: not scored here.
        documents: which document each row is of [B].
        starts: where each row begins in its document [B].
    """

    tokens: Tensor
    targets: Tensor
    documents: Tensor
    starts: Tensor

    @property
    def is_scored(self) -> Tensor:
        """Where a next token is to be predicted [B, T]."""
        return self.targets[0] != IGNORED_TARGET

    @property
    def places(self) -> Tensor:
        """Where in its document each target of the next token stands, its first token being at 0 [B, T]."""
        return self.starts[:, None] + 1 + torch.arange(self.targets.shape[2])


def batches(documents: Documents, tokens_per_batch: int, context: int | None, depth: int = 0) -> Iterator[Batch]:
    """All documents, windows of similar length together, so that little of a batch is padding.

    Args:
        documents: of which every token after the first is scored once.
        tokens_per_batch: padded tokens of a batch; a longer window makes a batch of its own.
        context: tokens of a window (see `window_start`); None: a document is one window.
        depth: D, tokens beyond a window that predictions further ahead read.
    """
    windows = [window for number, n in enumerate(documents.lengths) for window in _windows(number, int(n), context)]
    for group in _by_length(windows, tokens_per_batch):
        yield _batch([(documents[window.document], window) for window in group], depth)


def _windows(document: int, length: int, context: int | None) -> Iterator[Window]:
    """The windows that a document of this length is seen through."""
    start = first = 0
    while first < length - 1:
        stop = length - 1 if context is None else min(start + context, length - 1)
        yield Window(document, start, first, stop)
        first = stop
        start = window_start(first, context) if context is not None else 0


def _by_length(windows: Sequence[Window], tokens_per_batch: int) -> Iterator[list[Window]]:
    group: list[Window] = []
    for window in sorted(windows, key=lambda window: window.stop - window.start):
        # Lengths rise: the newest is the one the whole batch is padded to.
        if group and (len(group) + 1) * (window.stop - window.start + 1) > tokens_per_batch:
            yield group
            group = []
        group.append(window)
    if group:
        yield group


def _batch(pieces: Sequence[tuple[np.ndarray, Window]], depth: int) -> Batch:
    """Rows padded at the end, where causal attention does not look."""
    length = max(window.stop - window.start for _, window in pieces)
    tokens = torch.zeros(len(pieces), length + depth, dtype=torch.long)
    targets = torch.full((1 + depth, len(pieces), length), IGNORED_TARGET)
    for row, (document, (_, start, first, stop)) in enumerate(pieces):
        values = torch.from_numpy(np.asarray(document[start : stop + 1 + depth], dtype=np.int64))
        tokens[row, : len(values) - 1] = values[:-1]
        for k in range(1 + depth):
            wanted = values[first - start + 1 + k : stop - start + 1 + k]
            targets[k, row, first - start : first - start + len(wanted)] = wanted
    return Batch(
        tokens,
        targets,
        torch.tensor([window.document for _, window in pieces]),
        torch.tensor([window.start for _, window in pieces]),
    )
