"""Where the loss is: at the beginning of utterances or later on, and with whom."""

from collections.abc import Sequence

import numpy as np

from pipeline.evaluation.findings import Findings, Rows
from pipeline.evaluation.scoring import Score, TokenScores
from pipeline.evaluation.subject import Subject
from pipeline.preparation.origins import Origin
from pipeline.statistics.bootstrap import bootstrap
from pipeline.statistics.resampling import Design
from pipeline.statistics.statistic import RatioOfSums

# Each twice as long as the one before: what a model gains by looking back, it gains early.
FIRST_SECONDS = 0.125


def loss_breakdown(subject: Subject) -> Findings:
    """The loss by the place in the utterance, and by speaker; by codebook it is in `losses`."""
    seconds_per_token = 1 / (subject.vocabulary.n_codebooks * subject.codec.frame_rate)
    return Findings(
        tables={
            "loss_by_position.csv": position_rows(subject.score.tokens, subject.utterance_design, seconds_per_token),
            "loss_by_speaker.csv": speaker_rows(subject.score, subject.origins),
        }
    )


def position_rows(tokens: TokenScores, design: Design, seconds_per_token: float) -> Rows:
    """One row a stretch of time since the beginning of an utterance; `design` says how documents came about."""
    seconds = (tokens.place - 1) * seconds_per_token
    last = int(np.ceil(np.log2(max(seconds.max(initial=0.0) / FIRST_SECONDS, 1.0)))) + 1
    bounds = [0.0, *(FIRST_SECONDS * 2.0**power for power in range(last))]
    rows = []
    for begin, end in zip(bounds, bounds[1:], strict=False):
        inside = (seconds >= begin) & (seconds < end)
        nats, counts = (
            np.bincount(tokens.document[inside], weights, minlength=design.n_units)
            for weights in (tokens.nats[inside], np.ones(inside.sum()))
        )
        if counts.any():
            loss = bootstrap(RatioOfSums(nats, counts), design)
            rows.append(
                {
                    "seconds_from": begin,
                    "seconds_to": end,
                    "n_tokens": int(counts.sum()),
                    "n_utterances": int((counts > 0).sum()),
                    "nats": loss.value,
                    "low": loss.low,
                    "high": loss.high,
                }
            )
    return rows


def speaker_rows(score: Score, origins: Sequence[Origin]) -> Rows:
    """One row a known speaker, the worst predicted first; intervals are over the speaker's utterances."""
    speakers = np.array([origin.speaker for origin in origins])
    nats, counts = score.nats.sum(axis=1), score.counts.sum(axis=1)
    rows = []
    for speaker in sorted(set(speakers.tolist()) - {""}):
        own = speakers == speaker
        loss = bootstrap(RatioOfSums(nats[own], counts[own].astype(float)))
        rows.append(
            {
                "speaker": speaker,
                "n_utterances": int(own.sum()),
                "n_tokens": int(counts[own].sum()),
                "nats": loss.value,
                "low": loss.low,
                "high": loss.high,
            }
        )
    return sorted(rows, key=lambda row: -row["nats"])
