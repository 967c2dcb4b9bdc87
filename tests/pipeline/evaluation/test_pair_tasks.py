from collections.abc import Callable

import numpy as np
import pytest

from pipeline.evaluation.minimal_pairs import SpeechList, is_right, score_pairs
from pipeline.evaluation.pair_tasks import (
    CONTINUATION,
    SPEAKER,
    Geometry,
    Pair,
    Side,
    exchanged_pairs,
    interleave,
    match,
    reversed_pairs,
    segment_pairs,
)
from pipeline.tokens.vocabulary import Vocabulary

VOCABULARY = Vocabulary(n_codebooks=2, codebook_size=64)
GEOMETRY = Geometry(part=12, margin=2, n_codebooks=2)
FRAMES = [70, 3, 40, 55, 24, 61, 18, 90, 33, 48]
SPEAKERS = ["ann", "bob", "ann", "bob", "ann", "cem", "bob", "cem", "ann", "bob"]


@pytest.fixture
def speech() -> SpeechList:
    rng = np.random.default_rng(1)
    return SpeechList([VOCABULARY.document(rng.integers(0, 64, size=(n, 2))) for n in FRAMES])


def exchanged(speech: SpeechList, n: int = 100) -> list[Pair]:
    rng = np.random.default_rng(2)
    same = exchanged_pairs(CONTINUATION, speech, SPEAKERS, GEOMETRY, lambda a, b: a == b, n, rng)
    return [*same, *exchanged_pairs(SPEAKER, speech, SPEAKERS, GEOMETRY, lambda a, b: a != b, n, rng)]


def joined(speech: SpeechList) -> list[Pair]:
    return [*exchanged(speech), *segment_pairs(speech, SPEAKERS, GEOMETRY, 100, np.random.default_rng(3))]


def turned(speech: SpeechList) -> list[Pair]:
    return reversed_pairs(speech, SPEAKERS, GEOMETRY, 100, np.random.default_rng(4))


def scored(sides: tuple[Side, ...]) -> list[int]:
    return sorted(int(token) for side in sides for span in side.scored for token in side.tokens[span])


def test_both_sides_score_the_same_tokens(speech: SpeechList) -> None:
    for pair in (*joined(speech), *turned(speech)):
        assert scored(pair.true) == scored(pair.false)
        assert len(scored(pair.true)) > 0


def test_true_sides_are_beginnings_of_utterances_and_false_ones_are_not(speech: SpeechList) -> None:
    beginnings = {bytes(document[:end].tobytes()) for document in speech.documents for end in range(len(document))}
    for pair in (*joined(speech), *turned(speech)):
        assert all(side.tokens.tobytes() in beginnings for side in pair.true)
        assert not any(side.tokens.tobytes() in beginnings for side in pair.false)
        # Frames stay whole.
        assert all(VOCABULARY.tokens_to_codes(side.tokens).shape[1] == 2 for side in pair.false)


def looking_back(n_tokens: int) -> Callable[[np.ndarray], np.ndarray]:
    """A model that is certain of everything it believes, from the last tokens alone."""

    def nats(document: np.ndarray) -> np.ndarray:
        seen = [document[max(place - n_tokens, 0) : place + 1] for place in range(len(document))]
        return np.array([np.random.default_rng(past).random() for past in seen])

    return nats


def test_joins_do_not_give_themselves_away(speech: SpeechList) -> None:
    margin = GEOMETRY.margin * GEOMETRY.n_codebooks
    for reach, is_tie in ((1, True), (margin, True), (margin + 1, False)):
        nats = looking_back(reach)
        rows = score_pairs(joined(speech), lambda given, nats=nats: [nats(d) for d in given.documents], nats)
        assert all((is_right(row["nats_true"], row["nats_false"]) == 0.5) == is_tie for row in rows)
        assert {row["task"] for row in rows} == {"continuation", "speaker", "segments"}


def test_partners_speak_as_the_task_demands_and_share_nothing_with_others(speech: SpeechList) -> None:
    numbers = {document[: GEOMETRY.cut(12)].tobytes(): i for i, document in enumerate(speech.documents)}
    for task, is_same in ((CONTINUATION, True), (SPEAKER, False)):
        partners = {}
        for pair in exchanged(speech):
            if pair.task == task:
                first, second = (numbers[side.tokens[: GEOMETRY.cut(12)].tobytes()] for side in pair.true)
                assert (SPEAKERS[first] == SPEAKERS[second]) == is_same
                assert (pair.document, pair.speaker) == (first, SPEAKERS[first])
                assert partners.setdefault(first, second) == second
        used = [*partners, *partners.values()]
        assert len(used) == len(set(used)) > 2


def test_pairs_come_from_as_many_utterances_as_there_are_before_one_gives_a_second(speech: SpeechList) -> None:
    few = segment_pairs(speech, SPEAKERS, GEOMETRY, 5, np.random.default_rng(0))
    assert len({pair.document for pair in few}) == 5
    assert segment_pairs(speech, SPEAKERS, GEOMETRY, 5, np.random.default_rng(0))[0].document == few[0].document
    assert len(turned(speech)) > len({pair.document for pair in turned(speech)})


def test_reversed_speech_keeps_the_order_of_codes_within_a_frame() -> None:
    codes = np.stack((np.arange(30), 30 + np.arange(30)), axis=1)
    [pair, *_] = reversed_pairs(
        SpeechList([VOCABULARY.document(codes)]), ["ann"], GEOMETRY, 9, np.random.default_rng(0)
    )
    heard = VOCABULARY.tokens_to_codes(pair.false[0].tokens)[:, 0].tolist()
    assert heard == [*range(6), *range(17, 5, -1)]
    assert (VOCABULARY.tokens_to_codes(pair.false[0].tokens)[:, 1] - 30).tolist() == heard


@pytest.mark.parametrize(("reach", "part"), [(1000, 12), (25, 6), (9, 2)])
def test_parts_shrink_to_what_a_model_can_see(reach: int, part: int) -> None:
    geometry = Geometry.within(12, 2, 2, reach)
    assert geometry.part == part
    assert geometry.is_possible == (part > 5)


def test_nothing_comes_of_utterances_that_are_too_short() -> None:
    short = SpeechList([VOCABULARY.document(np.zeros((5, 2), dtype=int))] * 4)
    assert exchanged_pairs(SPEAKER, short, list("abcd"), GEOMETRY, lambda a, b: True, 9, np.random.default_rng(0)) == []
    assert segment_pairs(short, list("abcd"), GEOMETRY, 9, np.random.default_rng(0)) == []
    assert reversed_pairs(short, list("abcd"), GEOMETRY, 9, np.random.default_rng(0)) == []


def test_matching_and_interleaving() -> None:
    assert match([1, 2, 3, 5, 4, 8], lambda a, b: (a + b) % 2 == 1) == [(1, 2), (3, 4), (5, 8)]
    assert list(interleave([iter("abc"), iter(""), iter("x")])) == ["a", "x", "b", "c"]
