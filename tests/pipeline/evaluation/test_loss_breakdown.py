import numpy as np
import pytest

from pipeline.evaluation.loss_breakdown import loss_breakdown, position_rows, speaker_rows
from pipeline.evaluation.scoring import score_documents
from pipeline.preparation.origins import Origin
from pipeline.statistics.resampling import Design

FRAMES = [9, 40, 30, 9, 17]
ORIGINS = [Origin(str(i), speaker) for i, speaker in enumerate(["ann", "bob", "ann", "", "bob"])]


def test_every_token_is_in_one_stretch(build_decoder, random_split) -> None:
    tokens = score_documents(build_decoder(), random_split("test", FRAMES), 2).tokens
    rows = position_rows(tokens, Design(len(FRAMES)), 0.02)
    assert [row["seconds_from"] for row in rows] == [0.0, 0.125, 0.25, 0.5, 1.0]
    assert [row["seconds_to"] for row in rows] == [0.125, 0.25, 0.5, 1.0, 2.0]
    assert sum(row["n_tokens"] for row in rows) == len(tokens)
    # 0.5 s is 25 tokens: three utterances go on beyond.
    assert [row["n_utterances"] for row in rows] == [5, 5, 5, 3, 2]
    inside = (tokens.place - 1 >= 25) & (tokens.place - 1 < 50)
    assert rows[3]["nats"] == pytest.approx(tokens.nats[inside].mean())
    assert rows[3]["low"] < rows[3]["nats"] < rows[3]["high"]
    assert sum(row["n_tokens"] * row["nats"] for row in rows) == pytest.approx(tokens.nats.sum())


def test_the_last_token_on_a_border_is_counted() -> None:
    one = np.arange(8)
    tokens = type("Tokens", (), {"place": one + 1, "document": np.zeros(8, dtype=int), "nats": np.ones(8)})()
    assert sum(row["n_tokens"] for row in position_rows(tokens, Design(1), 0.125)) == 8


def test_speakers_stand_in_the_order_of_their_losses(build_decoder, random_split) -> None:
    score = score_documents(build_decoder(), random_split("test", FRAMES), 2)
    rows = speaker_rows(score, ORIGINS)
    assert {row["speaker"]: row["n_utterances"] for row in rows} == {"ann": 2, "bob": 2}
    assert rows[0]["nats"] >= rows[1]["nats"]
    own = np.isin(score.tokens.document, [0, 2])
    assert {row["speaker"]: row["nats"] for row in rows}["ann"] == pytest.approx(score.tokens.nats[own].mean())


def test_nobody_is_listed_where_speakers_are_unknown(build_decoder, random_split) -> None:
    documents = random_split("test", FRAMES)
    subject = type("Subject", (), {})()
    subject.score, subject.test, subject.vocabulary = (
        score_documents(build_decoder(), documents, 2),
        documents,
        documents.vocabulary,
    )
    subject.codec, subject.origins = type("Codec", (), {"frame_rate": 25.0})(), [Origin("u")] * len(FRAMES)
    subject.utterance_design = Design(len(FRAMES))
    tables = loss_breakdown(subject).tables
    assert tables["loss_by_speaker.csv"] == []
    assert len(tables["loss_by_position.csv"]) == 5
