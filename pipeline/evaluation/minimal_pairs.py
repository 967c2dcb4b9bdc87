"""Minimal pairs: is speech as it is more likely to the model than the same speech put together wrongly?

No judge and no ear is asked, and chance is 50 %. `pair_tasks` and `spoken_words` say what pairs are made of.
"""

import logging
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from pipeline.evaluation.findings import Findings, Rows
from pipeline.evaluation.pair_choice import TASKS, NotPossibleError
from pipeline.evaluation.pair_tasks import Pair, Side
from pipeline.evaluation.scoring import token_nats
from pipeline.evaluation.subject import Subject
from pipeline.statistics.proportion import clustered_wilson

log = logging.getLogger(__name__)

# Sums over the same numbers in another order differ by rounding: that is a tie.
ROUNDING = 1e-6


class SpeechList:
    """Speech in memory, as `Documents`."""

    def __init__(self, documents: Sequence[np.ndarray]) -> None:
        self.documents = documents
        self.lengths = np.array([len(document) for document in documents], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.documents)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.documents[index]


def minimal_pairs(subject: Subject) -> Findings:
    """The accuracy on every task that the corpus allows, and why it does not allow the others."""
    pairs: list[Pair] = []
    skipped: dict[str, str] = {}
    for task, make in TASKS.items():
        try:
            pairs += make(subject)
        except NotPossibleError as reason:
            skipped[task] = str(reason)
            log.info("No minimal pairs of %s: %s.", task, reason)
    rows = score_pairs(
        pairs,
        lambda speech: token_nats(subject.decoder, speech, context=subject.context, description="minimal pairs"),
        subject.baselines.bigram_nats,
    )
    metrics: dict[str, float] = {}
    for task in dict.fromkeys(row["task"] for row in rows):
        own = [row for row in rows if row["task"] == task]
        right = np.array([is_right(row["nats_true"], row["nats_false"]) for row in own])
        together = subject.speakers.clusters([row["speaker"] for row in own], [row["document"] for row in own])
        metrics |= clustered_wilson(right, together).metrics(f"eval/pairs/{task}")
        by_bigram = [is_right(row["bigram_true"], row["bigram_false"]) for row in own]
        metrics[f"eval/pairs/{task}/bigram"] = float(np.mean(by_bigram))
    return Findings(metrics, {"minimal_pairs.csv": rows}, {"minimal_pairs.json": {"skipped": skipped}})


def score_pairs(
    pairs: Sequence[Pair],
    nats_of: Callable[[SpeechList], Sequence[np.ndarray]],
    bigram_nats: Callable[[np.ndarray], np.ndarray],
) -> Rows:
    """One row a pair: what both sides cost. A false side of another length is scaled to the true one's.

    Args:
        pairs: of any tasks.
        nats_of: the model's cross-entropy for every token of documents.
        bigram_nats: what counting makes of a document.
    """
    # The same utterance is the true side of many pairs.
    speech = {side.tokens.tobytes(): side.tokens for pair in pairs for side in (*pair.true, *pair.false)}
    nats = dict(zip(speech, nats_of(SpeechList(list(speech.values()))), strict=True))
    bigram = {key: bigram_nats(tokens) for key, tokens in speech.items()}
    rows = []
    for number, pair in enumerate(pairs):
        n_true, n_false = (sum(_scored(side.tokens, side).size for side in sides) for sides in (pair.true, pair.false))
        row = {
            "task": pair.task,
            "pair": number,
            "document": pair.document,
            "speaker": pair.speaker,
            "n_tokens": n_true,
        }
        for name, values in (("nats", nats), ("bigram", bigram)):
            row[f"{name}_true"] = _total(pair.true, values)
            row[f"{name}_false"] = _total(pair.false, values) * n_true / n_false
        rows.append(row)
    return rows


def is_right(true: float, false: float) -> float:
    """1 where the true side costs less, 0 where the false one does, and ½ for a tie."""
    if abs(true - false) <= ROUNDING * max(abs(true), abs(false)):
        return 0.5
    return float(true < false)


def _total(sides: Sequence[Side], values: Mapping[bytes, np.ndarray]) -> float:
    return float(sum(_scored(values[side.tokens.tobytes()], side).sum() for side in sides))


def _scored(values: np.ndarray, side: Side) -> np.ndarray:
    return np.concatenate([values[span] for span in side.scored])
