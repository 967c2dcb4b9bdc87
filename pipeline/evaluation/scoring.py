"""The loss of a decoder on whole documents, token by token."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from lightning_modules.model.decoder import Decoder, DecoderOutput
from lightning_modules.model.decoding.sampling import token_probabilities
from lightning_modules.model.sampling_configuration import SamplingConfig
from lightning_modules.model.token_loss import IGNORED_TARGET
from lightning_modules.packing import Documents
from pipeline.evaluation.cores import on_all_cores
from pipeline.evaluation.ranks import own_share, sum_over_ranks
from pipeline.evaluation.routing_counts import RoutingCounts
from pipeline.evaluation.windows import Batch, batches

PLAIN = SamplingConfig()


@dataclass(frozen=True)
class TokenScores:
    """What a decoder made of every token after the first of its document, documents one after another.

    Attributes:
        document: which one a token is of [N].
        place: where it stands there, from 1 on [N].
        nats: its cross-entropy [N].
        confidence: the probability of what was held most probable in its place [N].
        is_right: whether that is what stands there [N].
        ahead_nats: the cross-entropy of what depth k (from 1) predicts from the place before for k tokens further on
            [D, N]; NaN where the document has ended.
        acceptance: how probably that prediction, were it drawn from as a draft, would be kept by the decoder [D, N];
            NaN where the document has ended, or the decoder looks there through another window.
    """

    document: np.ndarray
    place: np.ndarray
    nats: np.ndarray
    confidence: np.ndarray
    is_right: np.ndarray
    ahead_nats: np.ndarray
    acceptance: np.ndarray

    def __len__(self) -> int:
        return len(self.nats)


@dataclass(frozen=True)
class Score:
    """How well a decoder predicts documents: every token after the first of its document, the last included.

    Attributes:
        tokens: what it made of each.
        nats: summed cross-entropy of each document at each of the Q positions that come round in turn after the first
            token, [D, Q].
        counts: how many tokens that were, [D, Q].
        choices: of the experts of every layer, {layer number: counts}.
    """

    tokens: TokenScores
    nats: np.ndarray
    counts: np.ndarray
    choices: dict[int, RoutingCounts]

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


@torch.inference_mode()
def score_documents(
    decoder: Decoder,
    documents: Documents,
    n_codebooks: int,
    tokens_per_batch: int = 8192,
    context: int | None = None,
    sampling: SamplingConfig = PLAIN,
) -> Score:
    """Score every document on its own, from its first token to its last.

    Args:
        decoder: the model, on whichever device.
        documents: what to score.
        n_codebooks: Q, positions that come round in turn.
        tokens_per_batch: padded tokens computed at a time; a longer window makes a batch of its own.
        context: tokens that the model has learnt to look back over: longer documents are seen through windows of so
            many (see `window_start`). None: tokens look back over everything.
        sampling: how drafts would be drawn, and judged.
    """
    decoder.eval()
    counts = np.maximum(documents.lengths - 1, 0)
    work = partial(_judge_some, decoder, counts, n_codebooks, sampling)
    own = own_share(list(batches(documents, tokens_per_batch, context, len(decoder.mtp))))
    parts = on_all_cores(work, own, _n_tokens(own), decoder.embed_tokens.weight.device)
    judged, choices = parts[0]
    for others_judged, others_choices in parts[1:]:
        judged += others_judged
        for layer, counted in choices.items():
            counted.merge(others_choices[layer])
    for table in (judged, *(table for counted in choices.values() for table in counted.tables())):
        sum_over_ranks(table)
    tokens = _token_scores(counts, judged.numpy())
    slot, shape = tokens.document * n_codebooks + (tokens.place - 1) % n_codebooks, (len(documents), n_codebooks)
    return Score(
        tokens,
        np.bincount(slot, tokens.nats, minlength=shape[0] * shape[1]).reshape(shape),
        np.bincount(slot, minlength=shape[0] * shape[1]).reshape(shape),
        choices,
    )


@torch.inference_mode()
def token_nats(
    decoder: Decoder,
    documents: Documents,
    tokens_per_batch: int = 8192,
    context: int | None = None,
    description: str = "scoring",
) -> list[np.ndarray]:
    """The cross-entropy of every token of each document [T], of which the first has none: as `score_documents`."""
    decoder.eval()
    ends = np.cumsum(documents.lengths)
    work = partial(_nats_of_some, decoder, ends - documents.lengths, int(documents.lengths.sum()), description)
    own = own_share(list(batches(documents, tokens_per_batch, context)))
    nats = torch.stack(on_all_cores(work, own, _n_tokens(own), decoder.embed_tokens.weight.device)).sum(dim=0)
    sum_over_ranks(nats)
    return [nats[end - length : end].numpy() for length, end in zip(documents.lengths, ends, strict=True)]


def _n_tokens(own: Sequence[Batch]) -> int:
    return sum(batch.tokens.numel() for batch in own)


@torch.inference_mode()
def _judge_some(
    decoder: Decoder,
    counts: np.ndarray,
    n_codebooks: int,
    sampling: SamplingConfig,
    some: Sequence[Batch],
    shows_progress: bool,
) -> tuple[Tensor, dict[int, RoutingCounts]]:
    """What `_judge` makes of the tokens of some batches, in the place of each among all, and the choices for them."""
    device, depth = decoder.embed_tokens.weight.device, len(decoder.mtp)
    first = torch.from_numpy(np.cumsum(counts) - counts)
    judged = torch.zeros(3 + 2 * depth, int(counts.sum()), dtype=torch.float64)
    choices = {
        layer: RoutingCounts(n_codebooks, len(counts), decoder.config.n_routed_segments)
        for layer in decoder.expert_layers()
        if layer < decoder.config.num_hidden_layers
    }
    for batch in tqdm(some, desc="scoring", unit="batch", disable=not shows_progress):
        output, is_scored = _predict(decoder, batch.tokens.to(device)), batch.is_scored
        index = first[batch.documents][:, None] + batch.places - 1
        judged[:, index[is_scored]] = _judge(output, batch.targets.to(device), sampling).double().cpu()[:, is_scored]
        codebook, document = (batch.places - 1) % n_codebooks, batch.documents[:, None].expand_as(is_scored)
        # After the main model's routings come those of its prediction modules.
        for counted, routing in zip(choices.values(), output.routings, strict=False):
            counted.add(routing, codebook.flatten(), document.flatten(), is_scored.flatten())
    return judged, choices


@torch.inference_mode()
def _nats_of_some(
    decoder: Decoder, starts: np.ndarray, n_tokens: int, description: str, some: Sequence[Batch], shows_progress: bool
) -> Tensor:
    """The cross-entropy of the tokens of some batches, in the place of each among all [N]; 0 elsewhere."""
    device, first = decoder.embed_tokens.weight.device, torch.from_numpy(starts)
    nats = torch.zeros(n_tokens, dtype=torch.float64)
    for batch in tqdm(some, desc=description, unit="batch", disable=not shows_progress):
        logits, _ = decoder.next_token_logits(batch.tokens.to(device))
        losses = _cross_entropy(logits, batch.targets[0].to(device)).double().cpu()
        index = first[batch.documents][:, None] + batch.places
        nats[index[batch.is_scored]] = losses[batch.is_scored]
    return nats


def _predict(decoder: Decoder, tokens: Tensor) -> DecoderOutput:
    if len(decoder.mtp):
        return decoder(tokens)
    logits, routings = decoder.next_token_logits(tokens)
    return DecoderOutput(logits, [], routings)


def _judge(output: DecoderOutput, targets: Tensor, sampling: SamplingConfig) -> Tensor:
    """What `TokenScores` tells of each position but its document and place, a row an attribute [3 + 2 D, B, T]."""
    nats = _cross_entropy(output.logits, targets[0])
    best, choice = output.logits.float().max(dim=-1)
    # The target's logit less its log-probability is what the softmax divides by.
    wanted = output.logits.float().gather(2, targets[0].clamp_min(0)[..., None])[..., 0]
    confidence = (best - wanted - nats).exp()
    ahead = [_cross_entropy(logits, wanted) for logits, wanted in zip(output.ahead_logits, targets[1:], strict=True)]
    kept = [_acceptance(output, targets, k, sampling) for k in range(1, len(targets))]
    return torch.stack((nats, confidence, (choice == targets[0]).float(), *ahead, *kept))


def _acceptance(output: DecoderOutput, targets: Tensor, depth: int, sampling: SamplingConfig) -> Tensor:
    """How probably a draft of this depth at each position would be kept [B, T]; NaN where nothing judges it.

    Token x drawn from q is kept with probability min(1, p(x) / q(x)): over all x that is the sum of min(p, q).
    """
    draft, own = output.ahead_logits[depth - 1][:, :-depth], output.logits[:, depth:]
    kept = torch.full(targets.shape[1:], torch.nan, device=targets.device)
    # Row by row: distributions of a whole batch over a large vocabulary would take gigabytes.
    for row, (q, p) in enumerate(zip(draft, own, strict=True)):
        probabilities = token_probabilities(q, sampling), token_probabilities(p, sampling)
        kept[row, : len(q)] = torch.minimum(*probabilities).sum(dim=-1)
    is_judged = targets[0, :, depth:] != IGNORED_TARGET
    return kept.masked_fill(~F.pad(is_judged, (0, depth)), torch.nan)


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Of logits [B, T, V] and targets [B, T]; NaN where there is none."""
    losses = F.cross_entropy(
        logits.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORED_TARGET, reduction="none"
    )
    return losses.view_as(targets).masked_fill(targets == IGNORED_TARGET, torch.nan)


def _token_scores(counts: np.ndarray, judged: np.ndarray) -> TokenScores:
    """The scores of documents with so many tokens to predict, from rows as `_judge` makes them."""
    n, depth = judged.shape[1], (len(judged) - 3) // 2
    first = np.repeat(np.cumsum(counts) - counts, counts)
    nats, confidence, is_right = judged[:3]
    return TokenScores(
        document=np.repeat(np.arange(len(counts)), counts),
        place=np.arange(n) - first + 1,
        nats=nats,
        confidence=confidence,
        is_right=is_right == 1,
        ahead_nats=judged[3 : 3 + depth],
        acceptance=judged[3 + depth :],
    )
