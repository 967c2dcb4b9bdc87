"""The loss of a decoder on whole documents."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from lightning_modules.model.decoder import Decoder
from lightning_modules.model.sliding import window_start
from lightning_modules.model.token_loss import IGNORED_TARGET
from lightning_modules.packing import Documents


@dataclass(frozen=True)
class Score:
    """How well a decoder predicts documents: every token after the first of its document, the last included.

    Attributes:
        nats: summed cross-entropy of each document at each of the Q positions that come round in turn after the first
            token, [D, Q].
        counts: how many tokens that were, [D, Q].
        expert_load: tokens every expert received, {layer number: [E]}.
    """

    nats: np.ndarray
    counts: np.ndarray
    expert_load: dict[int, Tensor]

    @property
    def loss(self) -> float:
        """Mean cross-entropy in nats a token."""
        return float(self.nats.sum() / self.counts.sum())

    @property
    def by_codebook(self) -> list[float]:
        """The same for each position."""
        return (self.nats.sum(axis=0) / self.counts.sum(axis=0)).tolist()

    @property
    def n_tokens(self) -> int:
        """How many tokens were predicted."""
        return int(self.counts.sum())


class Window(NamedTuple):
    """A stretch of a document that is computed at once: inputs from `start` up to `stop`, scored from `first` on."""

    document: int
    start: int
    first: int
    stop: int


@torch.inference_mode()
def score_documents(
    decoder: Decoder,
    documents: Documents,
    n_codebooks: int,
    tokens_per_batch: int = 8192,
    context: int | None = None,
) -> Score:
    """Score every document on its own, from its first token to its last.

    Args:
        decoder: the model, on whichever device.
        documents: what to score.
        n_codebooks: Q, positions that come round in turn.
        tokens_per_batch: padded tokens computed at a time; a longer window makes a batch of its own.
        context: tokens that the model has learnt to look back over: longer documents are seen through windows of so
            many (see `window_start`). None: tokens look back over everything.
    """
    decoder.eval()
    device = decoder.embed_tokens.weight.device
    nats = torch.zeros(len(documents), n_codebooks, dtype=torch.float64)
    counts = torch.zeros(len(documents), n_codebooks, dtype=torch.int64)
    layers = [layer for layer in decoder.expert_layers() if layer < decoder.config.num_hidden_layers]
    loads = torch.zeros(len(layers), decoder.config.n_routed_segments)
    windows = [window for document, n in enumerate(documents.lengths) for window in _windows(document, int(n), context)]
    batches = list(_batches_by_length(windows, tokens_per_batch))
    for batch in tqdm(batches, desc="scoring", unit="batch"):
        tokens, targets = _pad([(documents[window.document], window) for window in batch])
        logits, routings = decoder.next_token_logits(tokens.to(device))
        losses = F.cross_entropy(
            logits.float().flatten(0, 1), targets.flatten().to(device), ignore_index=IGNORED_TARGET, reduction="none"
        )
        real = targets != IGNORED_TARGET
        starts = torch.tensor([window.start for window in batch])
        position = (starts[:, None] + torch.arange(targets.shape[1])) % n_codebooks
        rows = torch.tensor([window.document for window in batch])[:, None].expand_as(position)
        place = rows[real], position[real]
        nats.index_put_(place, losses.double().cpu()[real.flatten()], accumulate=True)
        counts.index_put_(place, torch.ones_like(place[0]), accumulate=True)
        for load, routing in zip(loads, routings, strict=True):
            chosen = routing.indices.cpu()[real.flatten()]
            load += torch.bincount(chosen.flatten(), minlength=len(load))
    return Score(nats.numpy(), counts.numpy(), dict(zip(layers, loads, strict=True)))


def _windows(document: int, length: int, context: int | None) -> Iterator[Window]:
    """The windows that a document of this length is seen through."""
    start = first = 0
    while first < length - 1:
        stop = length - 1 if context is None else min(start + context, length - 1)
        yield Window(document, start, first, stop)
        first = stop
        start = window_start(first, context) if context is not None else 0


def _batches_by_length(windows: Sequence[Window], tokens_per_batch: int) -> Iterator[list[Window]]:
    """Group windows of similar length, so that little of a batch is padding."""
    batch: list[Window] = []
    for window in sorted(windows, key=lambda window: window.stop - window.start):
        # Lengths rise: the newest is the one the whole batch is padded to.
        if batch and (len(batch) + 1) * (window.stop - window.start + 1) > tokens_per_batch:
            yield batch
            batch = []
        batch.append(window)
    if batch:
        yield batch


def _pad(pieces: Sequence[tuple[np.ndarray, Window]]) -> tuple[Tensor, Tensor]:
    """Inputs and targets [B, T], padded at the end, where causal attention does not look."""
    length = max(window.stop - window.start for _, window in pieces)
    tokens = torch.zeros(len(pieces), length, dtype=torch.long)
    targets = torch.full((len(pieces), length), IGNORED_TARGET)
    for row, (document, (_, start, first, stop)) in enumerate(pieces):
        values = torch.from_numpy(np.asarray(document[start : stop + 1], dtype=np.int64))
        tokens[row, : stop - start] = values[:-1]
        targets[row, first - start : stop - start] = values[first - start + 1 :]
    return tokens, targets
