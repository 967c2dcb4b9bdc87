"""How well the decoder predicts held-out speech, beside what counting can do."""

import math
from typing import Any

from pipeline.evaluation.findings import Findings
from pipeline.evaluation.prediction_ahead import ahead_columns
from pipeline.evaluation.subject import Subject
from pipeline.tokens.rate import bits_per_second


def losses(subject: Subject) -> Findings:
    """The test loss, overall, by codebook and by utterance."""
    score, baseline = subject.score, subject.baselines.evaluate(subject.test)
    n_frames = sum((length - 2) // subject.vocabulary.n_codebooks for length in subject.test.lengths)
    metrics = {
        "eval/loss": score.loss,
        "eval/perplexity": math.exp(score.loss),
        "eval/loss_uniform": baseline.uniform,
        "eval/loss_unigram": baseline.unigram,
        "eval/loss_bigram": baseline.bigram,
        "eval/bits_per_second": bits_per_second(score.loss, score.n_tokens, n_frames / subject.codec.frame_rate),
        **{f"eval/loss/codebook_{q}": loss for q, loss in enumerate(score.by_codebook)},
    }
    by_codebook = [
        {"codebook": q, "model": loss, "uniform": b.uniform, "unigram": b.unigram, "bigram": b.bigram}
        for q, (loss, b) in enumerate(zip(score.by_codebook, baseline.by_codebook, strict=True))
    ]
    return Findings(metrics, {"loss_by_codebook.csv": by_codebook, "utterances.csv": utterance_rows(subject)})


def utterance_rows(subject: Subject) -> list[dict[str, Any]]:
    """One row a test document: what its tokens cost in nats, at each codebook position, and predicted further ahead."""
    score = subject.score
    return [
        {
            "document": document,
            "utterance": origin.utterance,
            "speaker": origin.speaker,
            "seconds": (int(counts.sum()) - 1) // counts.size / subject.codec.frame_rate,
            "n_tokens": int(counts.sum()),
            "nats": float(nats.sum()),
            **{f"nats_{q}": float(value) for q, value in enumerate(nats)},
            **{f"n_tokens_{q}": int(value) for q, value in enumerate(counts)},
            **ahead,
        }
        for document, (origin, nats, counts, ahead) in enumerate(
            zip(subject.origins, score.nats, score.counts, ahead_columns(score.tokens, len(score.nats)), strict=True)
        )
    ]
