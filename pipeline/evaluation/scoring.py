"""The loss of a decoder on whole documents."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from lightning_modules.model.decoder import Decoder
from lightning_modules.packing import Documents

IGNORED_TARGET = -100


@dataclass(frozen=True)
class Score:
    """How well a decoder predicts documents.

    Attributes:
        loss: mean cross-entropy in nats a token: every token after the first of its document, the last included.
        by_codebook: the same for each of the Q positions that come round in turn after the first token.
        n_tokens: how many tokens were predicted.
        expert_load: tokens every expert received, {layer number: [E]}.
    """

    loss: float
    by_codebook: list[float]
    n_tokens: int
    expert_load: dict[int, Tensor]


@torch.inference_mode()
def score_documents(decoder: Decoder, documents: Documents, n_codebooks: int, tokens_per_batch: int = 8192) -> Score:
    """Score every document on its own, from its first token to its last.

    Args:
        decoder: the model.
        documents: what to score.
        n_codebooks: Q, positions that come round in turn.
        tokens_per_batch: padded tokens computed at a time; a longer document makes a batch of its own.
    """
    decoder.eval()
    sums = torch.zeros(n_codebooks, dtype=torch.float64)
    counts = torch.zeros(n_codebooks, dtype=torch.float64)
    layers = [layer for layer in decoder.expert_layers() if layer < decoder.config.num_hidden_layers]
    loads = torch.zeros(len(layers), decoder.config.n_routed_segments)
    batches = list(_batches_by_length(documents.lengths, tokens_per_batch))
    for indices in tqdm(batches, desc="scoring", unit="batch"):
        tokens, targets = _pad([documents[i] for i in indices])
        logits, routings = decoder.next_token_logits(tokens)
        losses = F.cross_entropy(
            logits.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORED_TARGET, reduction="none"
        ).double()
        real = targets != IGNORED_TARGET
        position = (torch.arange(targets.shape[1]) % n_codebooks).expand_as(targets)
        sums += torch.bincount(position.flatten(), weights=losses, minlength=n_codebooks)
        counts += torch.bincount(position[real], minlength=n_codebooks)
        for load, routing in zip(loads, routings, strict=True):
            chosen = routing.indices[real.flatten()]
            load += torch.bincount(chosen.flatten(), minlength=len(load))
    return Score(
        loss=float(sums.sum() / counts.sum()),
        by_codebook=(sums / counts).tolist(),
        n_tokens=int(counts.sum()),
        expert_load=dict(zip(layers, loads, strict=True)),
    )


def _batches_by_length(lengths: np.ndarray, tokens_per_batch: int) -> Iterator[list[int]]:
    """Group documents of similar length, so that little of a batch is padding."""
    batch: list[int] = []
    for index in np.argsort(lengths, kind="stable"):
        # Lengths rise: the newest is the one the whole batch is padded to.
        if batch and (len(batch) + 1) * lengths[index] > tokens_per_batch:
            yield batch
            batch = []
        batch.append(int(index))
    if batch:
        yield batch


def _pad(documents: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Inputs and targets [B, T], padded at the end, where causal attention does not look."""
    length = max(len(document) for document in documents) - 1
    tokens = torch.zeros(len(documents), length, dtype=torch.long)
    targets = torch.full((len(documents), length), IGNORED_TARGET)
    for row, document in enumerate(documents):
        values = torch.from_numpy(np.asarray(document, dtype=np.int64))
        tokens[row, : len(values) - 1] = values[:-1]
        targets[row, : len(values) - 1] = values[1:]
    return tokens, targets
