"""How well the decoder predicts held-out speech, beside what counting can do."""

import math
from typing import Any

import numpy as np

from pipeline.evaluation.findings import Findings
from pipeline.evaluation.prediction_ahead import ahead_columns
from pipeline.evaluation.subject import Subject
from pipeline.statistics.bootstrap import bootstrap
from pipeline.statistics.interval import LEVEL, Interval
from pipeline.statistics.statistic import RatioOfSums
from pipeline.tokens.ngram import BaselineLosses
from pipeline.tokens.rate import bits_per_second


def losses(subject: Subject) -> Findings:
    """The test loss, overall, by codebook and by utterance."""
    score, baseline = subject.score, subject.baselines.evaluate(subject.test)
    design = subject.utterance_design
    loss = bootstrap(RatioOfSums(score.nats.sum(axis=1), score.counts.sum(axis=1)), design)
    bits = loss.map(lambda nats: bits_per_second(nats, score.n_tokens, float(utterance_seconds(subject).sum())))
    by_codebook = [
        bootstrap(RatioOfSums(nats, counts), design) for nats, counts in zip(score.nats.T, score.counts.T, strict=True)
    ]
    metrics = {
        **loss.metrics("eval/loss"),
        **loss.map(math.exp).metrics("eval/perplexity"),
        "eval/loss_uniform": baseline.uniform,
        "eval/loss_unigram": baseline.unigram,
        "eval/loss_bigram": baseline.bigram,
        **bits.metrics("eval/bits_per_second"),
    }
    for q, interval in enumerate(by_codebook):
        metrics |= interval.metrics(f"eval/loss/codebook_{q}")
    return Findings(
        metrics,
        {"loss_by_codebook.csv": codebook_rows(by_codebook, baseline), "utterances.csv": utterance_rows(subject)},
        {
            "intervals.json": {
                "level": LEVEL,
                "speakers": subject.speakers.kind,
                "drawn": subject.speakers.description(),
            }
        },
    )


def utterance_seconds(subject: Subject) -> np.ndarray:
    """The length of each test document [D]."""
    return (subject.test.lengths - 2) // subject.vocabulary.n_codebooks / subject.codec.frame_rate


def codebook_rows(by_codebook: list[Interval], baseline: BaselineLosses) -> list[dict[str, Any]]:
    """One row a codebook position: the model's loss, its interval, and what counting makes of it."""
    return [
        {
            "codebook": q,
            "model": loss.value,
            "uniform": b.uniform,
            "unigram": b.unigram,
            "bigram": b.bigram,
            "model_low": loss.low,
            "model_high": loss.high,
        }
        for q, (loss, b) in enumerate(zip(by_codebook, baseline.by_codebook, strict=True))
    ]


def utterance_rows(subject: Subject) -> list[dict[str, Any]]:
    """One row a test document: what its tokens cost in nats, at each codebook position, and predicted further ahead."""
    score = subject.score
    aheads = ahead_columns(score.tokens, len(score.nats))
    return [
        {
            "document": document,
            "utterance": origin.utterance,
            "speaker": origin.speaker,
            "seconds": float(seconds),
            "n_tokens": int(counts.sum()),
            "nats": float(nats.sum()),
            **{f"nats_{q}": float(value) for q, value in enumerate(nats)},
            **{f"n_tokens_{q}": int(value) for q, value in enumerate(counts)},
            **ahead,
        }
        for document, (origin, seconds, nats, counts, ahead) in enumerate(
            zip(subject.origins, utterance_seconds(subject), score.nats, score.counts, aheads, strict=True)
        )
    ]
