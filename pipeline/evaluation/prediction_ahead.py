"""What the multi-token-prediction modules are worth: their loss, and how many of their drafts would be kept."""

from typing import Any

import numpy as np

from pipeline.evaluation.findings import Findings
from pipeline.evaluation.scoring import TokenScores
from pipeline.evaluation.subject import Subject
from pipeline.statistics.bootstrap import bootstrap
from pipeline.statistics.interval import Interval
from pipeline.statistics.resampling import Design
from pipeline.statistics.statistic import RatioOfSums


def prediction_ahead(subject: Subject) -> Findings:
    """Loss and acceptance of each depth, and how many tokens a round of drafting would yield."""
    tokens, design = subject.score.tokens, subject.utterance_design
    metrics: dict[str, float] = {}
    rows = []
    for k, (nats, kept) in enumerate(zip(tokens.ahead_nats, tokens.acceptance, strict=True), start=1):
        loss, acceptance = (mean_over_tokens(values, tokens.document, design) for values in (nats, kept))
        metrics |= loss.metrics(f"eval/mtp/loss_{k}") | acceptance.metrics(f"eval/mtp/acceptance_{k}")
        rows.append({"depth": k, "n_tokens": int(np.isfinite(nats).sum()), **_columns("nats", loss)})
        rows[-1] |= _columns("acceptance", acceptance)
    if rows:
        per_round = mean_over_tokens(tokens_per_round(tokens.acceptance), tokens.document, design)
        metrics |= per_round.metrics("eval/mtp/tokens_per_round")
    return Findings(metrics, {"prediction_ahead.csv": rows})


def mean_over_tokens(values: np.ndarray, document: np.ndarray, design: Design) -> Interval:
    """The mean of values [N] that are not NaN, and its interval over documents, drawn as `design` says."""
    known = np.isfinite(values)
    sums = np.bincount(document[known], values[known], minlength=design.n_units)
    counts = np.bincount(document[known], minlength=design.n_units)
    return bootstrap(RatioOfSums(sums, counts.astype(float)), design)


def tokens_per_round(acceptance: np.ndarray) -> np.ndarray:
    """Tokens that a round of drafting at each place [N] would yield: the decoder's own, and each draft if all before it
    are kept; NaN where a depth [D, N] is not judged.
    """
    return 1 + np.cumprod(acceptance, axis=0).sum(axis=0)


def ahead_columns(tokens: TokenScores, n_documents: int) -> list[dict[str, Any]]:
    """For a row a document: the nats of each depth, and of how many tokens."""
    columns: list[dict[str, Any]] = [{} for _ in range(n_documents)]
    for k, nats in enumerate(tokens.ahead_nats, start=1):
        known = np.isfinite(nats)
        sums = np.bincount(tokens.document[known], nats[known], minlength=n_documents)
        counts = np.bincount(tokens.document[known], minlength=n_documents)
        for row, total, count in zip(columns, sums.tolist(), counts.tolist(), strict=True):
            row |= {f"mtp_nats_{k}": total, f"mtp_tokens_{k}": count}
    return columns


def _columns(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
