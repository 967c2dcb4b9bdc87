from collections import Counter
from itertools import islice

import numpy as np
import pytest
import torch

from pipeline.evaluation.spoken_words import Quadruple, known_words, quadruples, word_pairs
from pipeline.tokens.vocabulary import Special, Vocabulary

HEARD = "Lantern kitten donkey badger violin market parcel garden lantern. It's a"


def test_words_are_counted_whatever_stands_around_them() -> None:
    assert known_words(["The lantern, the Kitten.", "LANTERN!"]) == Counter(the=2, lantern=2, kitten=1)


def test_two_words_exchange_their_last_syllables() -> None:
    assert list(quadruples(known_words(["lantern kitten"]), seed=1, least=1)) in (
        [Quadruple(("lantern", "kitten"), ("lanten", "kittern"))],
        [Quadruple(("kitten", "lantern"), ("kittern", "lanten"))],
    )


def test_each_word_serves_once_and_no_other_is_a_word() -> None:
    known = known_words([HEARD])
    found = list(quadruples(known, seed=1, least=1))
    words = [word for quadruple in found for word in quadruple.words]
    assert len(words) == len(set(words)) == 6
    assert not {other for quadruple in found for other in quadruple.others} & set(known)
    assert found == list(quadruples(known, seed=1, least=1)) != list(quadruples(known, seed=2, least=1))


@pytest.mark.parametrize(
    ("said", "least"),
    [
        ("lantern kitten", 2),  # heard once
        ("lantern kitten lanten", 1),  # what would come of them is a word itself
        ("tea strengths", 1),  # too short, and too few syllables
    ],
)
def test_there_may_be_none(said: str, least: int) -> None:
    assert list(quadruples(known_words([said]), seed=1, least=least)) == []


class LoudnessCodec:
    """Fifty frames a second of how loud it is."""

    sample_rate, n_codebooks, codebook_size = 8000, 1, 16

    def encode(self, audio: torch.Tensor) -> torch.Tensor:
        frames = audio[: len(audio) // 160 * 160].view(-1, 160)
        return (15 * frames.abs().mean(dim=1).clamp(max=1)).long()[:, None]


def test_words_are_spoken_and_the_most_equal_are_kept() -> None:
    pytest.importorskip("espeakng_loader")
    vocabulary = Vocabulary(1, 16)
    candidates = list(islice(quadruples(known_words([HEARD]), seed=1, least=1), 4))
    pairs = word_pairs(candidates, ["en-us", "en-us+f3"], LoudnessCodec(), vocabulary, 2)
    assert len(pairs) == 2
    assert pairs == sorted(pairs, key=lambda pair: pair.document)
    everything = word_pairs(candidates, ["en-us", "en-us+f3"], LoudnessCodec(), vocabulary, 9)
    lengths = [[sum(len(side.tokens) for side in sides) for sides in (p.true, p.false)] for p in everything]
    kept = {pair.document for pair in pairs}
    unequal = {pair.document: abs(true - false) for pair, (true, false) in zip(everything, lengths, strict=True)}
    assert max(unequal[n] for n in kept) <= min(unequal[n] for n in unequal if n not in kept) + 2
    for pair in pairs:
        assert pair.speaker in ("en-us", "en-us+f3")
        for side in (*pair.true, *pair.false):
            assert (side.tokens[0], side.tokens[-1]) == (Special.BOS, Special.EOS)
            # Half a second or so of speech, all of it scored.
            assert 15 < len(side.tokens) < 100
            assert np.concatenate([side.tokens[span] for span in side.scored]).tolist() == side.tokens[1:].tolist()
