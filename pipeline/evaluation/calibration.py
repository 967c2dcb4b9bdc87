"""Is the model right as often as it believes? Its likeliest token in every place, by how probable it held it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.evaluation.findings import Findings, Rows
from pipeline.evaluation.scoring import TokenScores
from pipeline.evaluation.subject import Subject
from pipeline.statistics.bootstrap import bootstrap
from pipeline.statistics.resampling import Design
from pipeline.statistics.statistic import RatioOfSums

N_BINS = 15


@dataclass(frozen=True, eq=False)
class Reliability:
    """The expected calibration error (arXiv 1706.04599) over documents.

    Guesses go to bins of equal width by their confidence. The error is the mean over all guesses of how far confidence
    and accuracy of their bin lie apart.

    Attributes:
        counts: guesses [D, bins].
        confidence: the probabilities that they were given, summed [D, bins].
        right: how many of them were right [D, bins].
    """

    counts: np.ndarray
    confidence: np.ndarray
    right: np.ndarray
    is_biased = True  # in few guesses, confidence and accuracy lie apart by chance alone

    @classmethod
    def of(cls, tokens: TokenScores, n_documents: int) -> "Reliability":
        """Sort the likeliest token in every place into bins."""
        bins = np.minimum((tokens.confidence * N_BINS).astype(np.int64), N_BINS - 1)
        counts, confidence, right = (
            np.bincount(tokens.document * N_BINS + bins, weights, minlength=n_documents * N_BINS)
            for weights in (np.ones(len(tokens)), tokens.confidence, tokens.is_right.astype(float))
        )
        shape = n_documents, N_BINS
        return cls(counts.reshape(shape), confidence.reshape(shape), right.reshape(shape))

    @property
    def n_units(self) -> int:
        """How many documents there are."""
        return len(self.counts)

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """The error [B] where each document counts as often as its weight [B, D] says; NaN where nothing counts."""
        gaps = np.abs(weights @ (self.confidence - self.right)).sum(axis=1)
        totals = weights @ self.counts.sum(axis=1)
        return np.divide(gaps, totals, out=np.full(len(totals), np.nan), where=totals != 0)

    def take(self, units: Sequence[int]) -> "Reliability":
        """The error over these documents alone."""
        index = np.asarray(units, dtype=int)
        return Reliability(self.counts[index], self.confidence[index], self.right[index])

    def rows(self, design: Design) -> Rows:
        """One row a bin that holds guesses: how sure they were, and how often right."""
        accuracies = [bootstrap(RatioOfSums(*both), design) for both in zip(self.right.T, self.counts.T, strict=True)]
        return [
            {
                "confidence_from": number / N_BINS,
                "confidence_to": (number + 1) / N_BINS,
                "n_tokens": int(count),
                "confidence": sure / count,
                "accuracy": accuracy.value,
                "low": accuracy.low,
                "high": accuracy.high,
            }
            for number, (count, sure, accuracy) in enumerate(
                zip(self.counts.sum(axis=0), self.confidence.sum(axis=0), accuracies, strict=True)
            )
            if count
        ]


def calibration(subject: Subject) -> Findings:
    """The calibration error, how far confidence lies above accuracy, and the table of both."""
    design = subject.utterance_design
    reliability = Reliability.of(subject.score.tokens, design.n_units)
    n_tokens = reliability.counts.sum(axis=1)
    accuracy = RatioOfSums(reliability.right.sum(axis=1), n_tokens)
    excess = RatioOfSums((reliability.confidence - reliability.right).sum(axis=1), n_tokens)
    return Findings(
        {
            **bootstrap(reliability, design).metrics("eval/calibration/ece"),
            **bootstrap(excess, design).metrics("eval/calibration/overconfidence"),
            **bootstrap(accuracy, design).metrics("eval/accuracy"),
        },
        {"calibration.csv": reliability.rows(design)},
    )
