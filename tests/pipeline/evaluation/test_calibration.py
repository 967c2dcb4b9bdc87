import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.evaluation.calibration import N_BINS, Reliability, calibration
from pipeline.evaluation.scoring import TokenScores
from pipeline.statistics.bootstrap import bias_of
from pipeline.statistics.resampling import Design

N, N_DOCUMENTS = 20_000, 40


def guesses(trust: float, seed: int = 0) -> TokenScores:
    """Guesses that are right as often as their confidence to the power of `trust` says."""
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(0, 1, N)
    nothing = np.zeros((0, N))
    return TokenScores(
        document=np.sort(rng.integers(0, N_DOCUMENTS, N)),
        place=np.ones(N, dtype=int),
        nats=np.ones(N),
        confidence=confidence,
        is_right=rng.random(N) < confidence**trust,
        ahead_nats=nothing,
        acceptance=nothing,
    )


def subject(tokens: TokenScores, design: Design | None = None) -> SimpleNamespace:
    return SimpleNamespace(score=SimpleNamespace(tokens=tokens), utterance_design=design or Design(N_DOCUMENTS))


def test_the_error_is_that_of_a_loop_over_bins() -> None:
    tokens = guesses(2.0)
    expected = 0.0
    for low in np.arange(N_BINS) / N_BINS:
        inside = (tokens.confidence >= low) & (tokens.confidence < low + 1 / N_BINS)
        expected += inside.mean() * abs(tokens.confidence[inside].mean() - tokens.is_right[inside].mean())
    reliability = Reliability.of(tokens, N_DOCUMENTS)
    assert reliability(np.ones((1, N_DOCUMENTS))) == pytest.approx([expected], abs=1e-4)
    assert reliability(np.zeros((1, N_DOCUMENTS))) == pytest.approx([np.nan], nan_ok=True)


def test_documents_count_as_often_as_they_are_drawn() -> None:
    reliability = Reliability.of(guesses(2.0), N_DOCUMENTS)
    drawn = np.bincount([3, 3, 7], minlength=N_DOCUMENTS)[None].astype(float)
    assert reliability(drawn) == pytest.approx(reliability.take([3, 3, 7])(np.ones((1, 3))))


def test_a_model_that_knows_how_much_it_knows_has_no_error() -> None:
    metrics = calibration(subject(guesses(1.0))).metrics
    assert abs(metrics["eval/calibration/ece"]) < 0.01
    assert metrics["eval/calibration/overconfidence/low"] < 0 < metrics["eval/calibration/overconfidence/high"]
    # What chance alone adds has been taken off.
    assert bias_of(Reliability.of(guesses(1.0), N_DOCUMENTS), Design(N_DOCUMENTS)) > 0.002


def test_one_that_believes_too_much_is_found_out() -> None:
    findings = calibration(subject(guesses(2.0)))
    # The mean of c − c² for c even from 0 to 1.
    assert findings.metrics["eval/calibration/ece"] == pytest.approx(1 / 6, abs=0.01)
    assert findings.metrics["eval/calibration/overconfidence/low"] > 0.1
    assert findings.metrics["eval/accuracy"] == pytest.approx(1 / 3, abs=0.02)
    rows = findings.tables["calibration.csv"]
    assert sum(row["n_tokens"] for row in rows) == N
    assert all(row["confidence_from"] <= row["confidence"] <= row["confidence_to"] for row in rows)
    assert all(row["accuracy"] == pytest.approx(row["confidence"] ** 2, abs=0.06) for row in rows)
    assert all(row["low"] <= row["accuracy"] <= row["high"] for row in rows)


def test_empty_bins_have_no_row() -> None:
    tokens = guesses(1.0)
    sure = Reliability.of(
        TokenScores(tokens.document, tokens.place, tokens.nats, np.ones(N), tokens.is_right, *[tokens.acceptance] * 2),
        N_DOCUMENTS,
    )
    assert [row["confidence_to"] for row in sure.rows(Design(sure.n_units))] == [1.0]


def test_speakers_whom_nobody_has_heard_widen_the_interval() -> None:
    tokens = guesses(1.0)
    # Those of the first speakers are always right: speakers differ more than their utterances do.
    speakers = np.repeat(np.arange(8), N_DOCUMENTS // 8)
    lucky = dataclasses.replace(tokens, is_right=speakers[tokens.document] < 4)
    widths = []
    for design in (Design(N_DOCUMENTS), Design(N_DOCUMENTS, clusters=speakers.tolist())):
        metrics = calibration(subject(lucky, design)).metrics
        widths.append(metrics["eval/accuracy/high"] - metrics["eval/accuracy/low"])
    assert widths[1] > 1.5 * widths[0]
