from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.evaluation.prediction_ahead import ahead_columns, prediction_ahead, tokens_per_round
from pipeline.evaluation.scoring import score_documents
from pipeline.statistics.resampling import Design

FRAMES = [9, 1, 30, 4, 17]


def test_each_depth_has_its_loss_and_its_acceptance(build_decoder, random_split) -> None:
    documents = random_split("test", FRAMES)
    tokens = score_documents(build_decoder(num_nextn_predict_layers=2), documents, 2).tokens
    findings = prediction_ahead(
        SimpleNamespace(score=SimpleNamespace(tokens=tokens), utterance_design=Design(len(FRAMES)))
    )
    for k in (1, 2):
        assert findings.metrics[f"eval/mtp/loss_{k}"] == pytest.approx(np.nanmean(tokens.ahead_nats[k - 1]))
        assert findings.metrics[f"eval/mtp/acceptance_{k}"] == pytest.approx(np.nanmean(tokens.acceptance[k - 1]))
        assert findings.metrics[f"eval/mtp/loss_{k}/low"] < findings.metrics[f"eval/mtp/loss_{k}/high"]
    assert [row["depth"] for row in findings.tables["prediction_ahead.csv"]] == [1, 2]
    assert [row["n_tokens"] for row in findings.tables["prediction_ahead.csv"]] == [
        sum(2 * n for n in FRAMES), sum(2 * n - 1 for n in FRAMES)
    ]  # fmt: skip


def test_a_decoder_without_modules_has_none(build_decoder, random_split) -> None:
    documents = random_split("test", FRAMES)
    tokens = score_documents(build_decoder(num_nextn_predict_layers=0), documents, 2).tokens
    findings = prediction_ahead(
        SimpleNamespace(score=SimpleNamespace(tokens=tokens), utterance_design=Design(len(FRAMES)))
    )
    assert (findings.metrics, findings.tables["prediction_ahead.csv"]) == ({}, [])
    assert ahead_columns(tokens, len(FRAMES)) == [{}] * len(FRAMES)


def test_a_draft_counts_only_if_all_before_it_were_kept() -> None:
    acceptance = np.array([[1.0, 0.5, 0.0, 0.5], [1.0, 0.5, 1.0, np.nan]])
    assert tokens_per_round(acceptance) == pytest.approx([3, 1.75, 1, np.nan], nan_ok=True)


def test_a_row_a_document_adds_up_to_the_loss(build_decoder, random_split) -> None:
    tokens = score_documents(build_decoder(num_nextn_predict_layers=2), random_split("test", FRAMES), 2).tokens
    rows = ahead_columns(tokens, len(FRAMES))
    assert [row["mtp_tokens_2"] for row in rows] == [max(2 * n - 1, 0) for n in FRAMES]
    assert sum(row["mtp_nats_1"] for row in rows) == pytest.approx(np.nansum(tokens.ahead_nats[0]))
