"""What counting single tokens and pairs can predict: the losses a language model has to beat.

Everything is done per codebook position: the alternatives at position q are the codes of codebook q, and at position 0
also EOS. The targets are those a language model is scored on: every token but BOS, EOS included.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.tokens.dataset import TokenDataset
from pipeline.tokens.vocabulary import Special, Vocabulary

CHUNK_TOKENS = 2**20
# Bounds of the prior's strength, in pseudo-counts: from next to none to drowning any corpus.
LOG_STRENGTHS = (np.log(1e-3), np.log(1e9))


@dataclass(frozen=True)
class Losses:
    """Mean losses in nats per target, and how many targets there were."""

    uniform: float
    unigram: float
    bigram: float
    n_targets: int


@dataclass(frozen=True)
class BaselineLosses(Losses):
    """Losses over all targets, and over the targets of each codebook position."""

    by_codebook: tuple[Losses, ...]


def count_pairs(dataset: TokenDataset) -> np.ndarray:
    """Count which alternative follows which context: int64 [Q, codebook_size + 1, codebook_size + 1].

    Entry [q, x, y] counts targets y at codebook position q that follow x: the code before it in the same frame, or for
    q = 0 the previous frame's last code. The extra context stands for BOS, the extra alternative for EOS, so both
    occur at q = 0 alone.

    Raises:
        ValueError: a document is not BOS, whole frames, EOS.
    """
    vocabulary = dataset.vocabulary
    n_codebooks, n_outcomes = vocabulary.n_codebooks, vocabulary.codebook_size + 1
    counts = np.zeros((n_codebooks, n_outcomes, n_outcomes), dtype=np.int64)
    last = np.array([Special.EOS])
    for chunk in dataset.chunks(CHUNK_TOKENS):
        tokens = np.concatenate([last, chunk])
        last = chunk[-1:]
        _check_order(tokens, vocabulary, dataset)
        targets = tokens[1:]
        positions = np.where(targets == Special.EOS, 0, (targets - len(Special)) // vocabulary.codebook_size)
        # A special's place, the extra one, is for BOS among contexts and for EOS among targets.
        places = np.where(tokens < len(Special), n_outcomes - 1, (tokens - len(Special)) % vocabulary.codebook_size)
        pairs = places[:-1] * n_outcomes + places[1:]
        is_target = targets != Special.BOS
        for q in range(n_codebooks):
            at_position = pairs[is_target & (positions == q)]
            counts[q] += np.bincount(at_position, minlength=n_outcomes**2).reshape(n_outcomes, n_outcomes)
    if last[0] != Special.EOS:
        raise ValueError(f"The last document of {dataset.folder} does not end with EOS; run prepare-data again.")
    return counts


def _check_order(tokens: np.ndarray, vocabulary: Vocabulary, dataset: TokenDataset) -> None:
    """Each token after the first has to follow from the one before it."""
    n_codebooks = vocabulary.n_codebooks
    positions = (tokens - len(Special)) // vocabulary.codebook_size  # negative for specials
    is_code = tokens >= len(Special)
    # The position that is due after each token; none (-1) after EOS, where BOS is due.
    due = np.where(is_code, (positions + 1) % n_codebooks, np.where(tokens == Special.BOS, 0, -1))[:-1]
    targets = tokens[1:]
    legal = np.where(is_code[1:], positions[1:] == due, False)
    legal |= (targets == Special.EOS) & (due == 0)
    legal |= (targets == Special.BOS) & (tokens[:-1] == Special.EOS)
    if not legal.all():
        wrong = int(np.flatnonzero(~legal)[0])
        raise ValueError(
            f"{dataset.folder} has token {targets[wrong]} after {tokens[wrong]}, which no document of {vocabulary} "
            "has; make documents with `Vocabulary.document`."
        )


def interpolate(counts: np.ndarray, prior: np.ndarray, strength: float) -> np.ndarray:
    """Return `(counts + strength * prior) / (total + strength)` over the last axis of counts [..., Y], for prior [Y].

    That is relative frequency and prior, interpolated with the weight `total / (total + strength)` on the former: the
    oftener a context was seen, the more its own frequencies are trusted (MacKay and Peto, 1995).
    """
    return (counts + strength * prior) / (counts.sum(axis=-1, keepdims=True) + strength)


class NgramBaselines:
    """Uniform, unigram and bigram predictions for every codebook position.

    The unigram is interpolated with the uniform distribution, and the bigram with the unigram (see `interpolate`).
    Each strength is the one of greatest likelihood on validation documents, so no held-out loss is infinite and none
    is spoilt by too much smoothing.

    Attributes:
        vocabulary: of the tokens.
        uniform: [Q, codebook_size + 1] probabilities of the alternatives; the last is EOS.
        unigram: [Q, codebook_size + 1] likewise.
        bigram: [Q, codebook_size + 1, codebook_size + 1] likewise, for each context; the last context is BOS.
    """

    def __init__(self, vocabulary: Vocabulary, uniform: np.ndarray, unigram: np.ndarray, bigram: np.ndarray) -> None:
        self.vocabulary = vocabulary
        self.uniform = uniform
        self.unigram = unigram
        self.bigram = bigram

    @classmethod
    def fit(cls, train: TokenDataset, validation: TokenDataset) -> "NgramBaselines":
        """Count the training documents, and choose the smoothing on the validation documents.

        Raises:
            ValueError: the datasets' vocabularies differ, a document is malformed, or there is no frame to validate on.
        """
        _check_same_vocabulary(train.vocabulary, validation)
        counts, held_out = count_pairs(train), count_pairs(validation)
        if not held_out[-1].any():
            raise ValueError(f"{validation.folder} has no frames to choose the smoothing by; use a larger split.")
        uniform = _uniform(train.vocabulary)
        unigram = np.zeros_like(uniform)
        bigram = np.zeros(counts.shape)
        for q in range(train.vocabulary.n_codebooks):
            unigram[q] = _smoothed(counts[q].sum(axis=0), uniform[q], held_out[q].sum(axis=0))
            bigram[q] = _smoothed(counts[q], unigram[q], held_out[q])
        return cls(train.vocabulary, uniform, unigram, bigram)

    def evaluate(self, test: TokenDataset) -> BaselineLosses:
        """Return the mean losses over the targets of `test`.

        Raises:
            ValueError: the dataset has another vocabulary, or a document is malformed.
        """
        _check_same_vocabulary(self.vocabulary, test)
        sums, sizes = [], []
        for q, counts in enumerate(count_pairs(test)):
            singles = counts.sum(axis=0)
            pairs = [(singles, self.uniform[q]), (singles, self.unigram[q]), (counts, self.bigram[q])]
            sums.append([_summed_loss(observed, predicted) for observed, predicted in pairs])
            sizes.append(int(counts.sum()))
        by_codebook = tuple(_mean_losses(np.array(total), size) for total, size in zip(sums, sizes, strict=True))
        overall = _mean_losses(np.sum(sums, axis=0), sum(sizes))
        return BaselineLosses(overall.uniform, overall.unigram, overall.bigram, overall.n_targets, by_codebook)

    def bigram_nats(self, document: np.ndarray) -> np.ndarray:
        """The bigram's cross-entropy for every token of a document, or of its beginning [T]; the first has none."""
        size, n_codebooks = self.vocabulary.codebook_size, self.vocabulary.n_codebooks
        # A special's place is the last: BOS among contexts, EOS among targets.
        codes = np.where(document < len(Special), size, (document - len(Special)) % size)
        positions = np.arange(len(document) - 1) % n_codebooks
        return np.concatenate([[0.0], -np.log(self.bigram[positions, codes[:-1], codes[1:]])])

    def sample_unigram(self, n_frames: int, generator: torch.Generator) -> Tensor:
        """Draw int64 codes [n_frames, Q] from the unigram of each codebook position, EOS left out."""
        probabilities = torch.from_numpy(self.unigram[:, :-1])
        return _sample(probabilities, n_frames, generator)

    def sample_uniform(self, n_frames: int, generator: torch.Generator) -> Tensor:
        """Draw int64 codes [n_frames, Q], every code as likely as any other."""
        shape = (n_frames, self.vocabulary.n_codebooks)
        return torch.randint(self.vocabulary.codebook_size, shape, generator=generator)


def _sample(probabilities: Tensor, n_frames: int, generator: torch.Generator) -> Tensor:
    if n_frames == 0:  # which torch.multinomial refuses
        return torch.zeros(0, len(probabilities), dtype=torch.int64)
    return torch.multinomial(probabilities, n_frames, replacement=True, generator=generator).T.contiguous()


def _check_same_vocabulary(vocabulary: Vocabulary, dataset: TokenDataset) -> None:
    if dataset.vocabulary != vocabulary:
        raise ValueError(f"{dataset.folder} has {dataset.vocabulary}, not {vocabulary}; prepare all splits together.")


def _uniform(vocabulary: Vocabulary) -> np.ndarray:
    """Probabilities [Q, codebook_size + 1]; EOS has its share at position 0 only."""
    legal = np.ones((vocabulary.n_codebooks, vocabulary.codebook_size + 1))
    legal[1:, -1] = 0
    return legal / legal.sum(axis=1, keepdims=True)


def _smoothed(counts: np.ndarray, prior: np.ndarray, held_out: np.ndarray) -> np.ndarray:
    """Interpolate counts [..., Y] with the prior [Y], at the strength that predicts held-out counts [..., Y] best."""
    seen = np.nonzero(held_out)
    weights, own, prior_share = held_out[seen], counts[seen], prior[seen[-1]]
    totals = np.broadcast_to(counts.sum(axis=-1, keepdims=True), counts.shape)[seen]

    def loss(log_strength: float) -> float:
        strength = np.exp(log_strength)
        return -float(weights @ np.log((own + strength * prior_share) / (totals + strength)))

    return interpolate(counts, prior, np.exp(_minimise(loss)))


def _minimise(loss: Callable[[float], float]) -> float:
    """Return the log-strength of least loss: the best of a coarse grid, refined between its neighbours."""
    # A second to import, which who only reads baselines is spared.
    from scipy.optimize import minimize_scalar

    grid = np.linspace(*LOG_STRENGTHS, 15)
    best = int(np.argmin([loss(point) for point in grid]))
    bounds = (grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)])
    return float(minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 0.01}).x)


def _summed_loss(counts: np.ndarray, probabilities: np.ndarray) -> float:
    seen = np.nonzero(counts)
    return -float(counts[seen] @ np.log(probabilities[seen]))


def _mean_losses(sums: np.ndarray, size: int) -> Losses:
    uniform, unigram, bigram = (float(total / size) if size else float("nan") for total in sums)
    return Losses(uniform, unigram, bigram, size)
