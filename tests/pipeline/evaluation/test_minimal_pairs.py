from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pipeline.evaluation import pair_choice
from pipeline.evaluation.configuration import PairsConfig
from pipeline.evaluation.minimal_pairs import SpeechList, is_right, minimal_pairs, score_pairs
from pipeline.evaluation.pair_tasks import Pair, Side
from pipeline.evaluation.speakers import Speakers
from pipeline.preparation.origins import Origin
from pipeline.tokens.dataset import TokenDataset
from pipeline.tokens.ngram import NgramBaselines
from pipeline.tokens.vocabulary import Vocabulary

N_DOCUMENTS, N_FRAMES = 60, 60


def voices(seed: int, n: int = N_DOCUMENTS) -> list[np.ndarray]:
    """Utterances of two speakers, each with three codes of its own, and rising: what a model could know."""
    rng = np.random.default_rng(seed)
    documents = []
    for number in range(n):
        own = 8 * (number % 2) + rng.choice(8, size=(1, 3), replace=False)
        documents.append(np.take_along_axis(np.repeat(own, N_FRAMES, 0), rng.integers(0, 3, (N_FRAMES, 2)), 1))
    return documents


@pytest.fixture
def make_subject(make_split, vocabulary: Vocabulary, build_decoder):
    """What `minimal_pairs` reads of a subject, with an untrained decoder."""

    def make(n_speakers: int = 2, context: int | None = 100, margin: float = 0.1, **changes: Any) -> Any:
        train, validation, test = (make_split(name, voices(i), vocabulary) for i, name in enumerate("abc"))
        origins = tuple(Origin(str(i), f"voice {i % n_speakers}" if n_speakers else "") for i in range(len(test)))
        return SimpleNamespace(
            decoder=build_decoder(),
            codec=SimpleNamespace(frame_rate=20.0, n_codebooks=2),
            train=train,
            test=test,
            vocabulary=vocabulary,
            origins=origins,
            speakers=Speakers.of(origins, origins),
            baselines=NgramBaselines.fit(train, validation),
            context=context,
            settings=SimpleNamespace(seed=1, pairs=PairsConfig(64, 1.0, margin, None)),
            **changes,
        )

    return make


def accuracy(metrics: dict[str, float], task: str) -> tuple[float, float]:
    return metrics[f"eval/pairs/{task}/low"], metrics[f"eval/pairs/{task}/high"]


def test_a_model_without_training_is_at_chance(make_subject) -> None:
    findings = minimal_pairs(make_subject())
    for task in ("continuation", "speaker", "segments", "reversed"):
        low, high = accuracy(findings.metrics, task)
        assert low < 0.5 < high
        # Nor does the order of two tokens tell anything, outside the margin.
        assert findings.metrics[f"eval/pairs/{task}/bigram"] == 0.5 or task == "reversed"
    assert len(findings.tables["minimal_pairs.csv"]) == 4 * 64 - 4
    assert list(findings.documents["minimal_pairs.json"]["skipped"]) == ["words"]


def test_a_model_that_remembers_the_voice_is_above(make_subject, monkeypatch: pytest.MonkeyPatch) -> None:
    def remembering(_decoder: Any, speech: SpeechList, **_: Any) -> Sequence[np.ndarray]:
        """Tokens are as likely as they were so far."""
        return [
            np.array([-np.log((np.sum(tokens[:i] == tokens[i]) + 0.1) / (i + 4)) for i in range(len(tokens))])
            for tokens in speech.documents
        ]

    monkeypatch.setattr("pipeline.evaluation.minimal_pairs.token_nats", remembering)
    metrics = minimal_pairs(make_subject()).metrics
    assert accuracy(metrics, "speaker")[0] > 0.8
    assert accuracy(metrics, "continuation")[0] > 0.8
    # What was said before is the same there, whichever half came first.
    assert accuracy(metrics, "segments")[0] < 0.6


@pytest.mark.parametrize(
    ("changes", "task", "reason"),
    [
        ({"n_speakers": 1}, "speaker", "one speaker"),
        ({"n_speakers": 0}, "speaker", "do not tell who speaks"),
        ({"context": 4}, "segments", "looks back over 0.10 s"),
        ({}, "words", "which words"),
    ],
)
def test_what_is_not_possible_says_why(make_subject, changes: dict[str, Any], task: str, reason: str) -> None:
    findings = minimal_pairs(make_subject(**changes))
    assert reason in findings.documents["minimal_pairs.json"]["skipped"][task]
    assert f"eval/pairs/{task}" not in findings.metrics


def test_words_are_left_out_without_espeak(make_subject, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any) -> list[Pair]:
        raise ModuleNotFoundError

    heard = tuple(Origin("u", "a", "lantern kitten lantern kitten") for _ in range(3))
    monkeypatch.setattr(pair_choice, "read_origins", lambda _: heard)
    monkeypatch.setattr(pair_choice, "word_pairs", missing)
    monkeypatch.setattr(pair_choice, "read_prepared_identity", lambda _: SimpleNamespace(settings={}))
    findings = minimal_pairs(make_subject(prepared=None))
    assert "pip install 'melisma[espeak]'" in findings.documents["minimal_pairs.json"]["skipped"]["words"]


def test_sides_of_different_length_are_held_against_each_other_by_the_token() -> None:
    short, long = np.arange(4), np.arange(9)
    pair = Pair("words", 0, "ann", (Side(short, (slice(1, 4),)),), (Side(long, (slice(1, 9),)),))
    [row] = score_pairs([pair], lambda speech: [np.ones(len(d)) for d in speech.documents], lambda d: np.arange(len(d)))
    assert (row["n_tokens"], row["nats_true"], row["nats_false"]) == (3, 3.0, 3.0)
    assert (row["bigram_true"], row["bigram_false"]) == (1 + 2 + 3, 36 * 3 / 8)


@pytest.mark.parametrize(("true", "false", "right"), [(1.0, 2.0, 1.0), (2.0, 1.0, 0.0), (1e3, 1e3 + 1e-6, 0.5)])
def test_rounding_is_a_tie(true: float, false: float, right: float) -> None:
    assert is_right(true, false) == right


def test_the_bigrams_nats_are_those_of_its_loss(make_subject) -> None:
    subject = make_subject()
    test: TokenDataset = subject.test
    nats = np.concatenate([subject.baselines.bigram_nats(test[i])[1:] for i in range(len(test))])
    assert nats.mean() == pytest.approx(subject.baselines.evaluate(test).bigram)
