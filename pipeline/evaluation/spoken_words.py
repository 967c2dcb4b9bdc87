"""Words against words that there are not, spoken alike by espeak-ng (as sWUGGY, arXiv 2011.11588).

Two words exchange their last syllables, lantern and kitten to lanten and kittern: all four are spoken by one voice, so
that both sides of a pair hold the same syllables, and only their order tells which are words.
"""

import random
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pipeline.audio.codecs.codec import Codec
from pipeline.audio.corpora.espeak_synthesis import Request, shard_seconds, synthesise
from pipeline.audio.reading import read_audio
from pipeline.audio.resampling import resample
from pipeline.evaluation.pair_tasks import WORDS, Pair, Side
from pipeline.tokens.vocabulary import Vocabulary

# A consonant, vowels and consonants at the end, with a vowel somewhere before.
LAST_SYLLABLE = re.compile(r"(\w*[aeiouy]\w*?)([bcdfghjklmnpqrstvwxz][aeiouy]+[bcdfghjklmnpqrstvwxz]+)")
WORD_LENGTHS = range(5, 11)
WORDS_PER_MINUTE, PITCH = 170, 50
# More are spoken than are taken: pairs count whose sides have come out equally long.
CANDIDATES_PER_PAIR = 3


@dataclass(frozen=True)
class Quadruple:
    """Two words, and the two that there are not but of the same syllables."""

    words: tuple[str, str]
    others: tuple[str, str]


def known_words(transcripts: Iterable[str]) -> Counter[str]:
    """How often each word occurs, in small letters."""
    return Counter(word for transcript in transcripts for word in re.findall(r"[a-z]+", transcript.lower()))


def quadruples(known: Counter[str], seed: int, least: int = 2) -> Iterator[Quadruple]:
    """Pairs of words that exchange last syllables into no known words; each word occurs once.

    Args:
        known: how often the model has heard each word.
        seed: of the choice.
        least: how often it has to have heard those that are taken.
    """
    syllables = {
        word: split.groups()
        for word, count in sorted(known.items())
        if count >= least and len(word) in WORD_LENGTHS and (split := LAST_SYLLABLE.fullmatch(word))
    }
    left = sorted(syllables)
    random.Random(f"words/{seed}").shuffle(left)
    while left:
        first = left.pop()
        for second in left:
            (head, tail), (other_head, other_tail) = syllables[first], syllables[second]
            others = head + other_tail, other_head + tail
            if head != other_head and tail != other_tail and not any(word in known for word in others):
                left.remove(second)
                yield Quadruple((first, second), others)
                break


def word_pairs(
    candidates: Sequence[Quadruple], voices: Sequence[str], codec: Codec, vocabulary: Vocabulary, n: int
) -> list[Pair]:
    """Speak words and non-words, and keep the `n` pairs whose sides differ least in length.

    Args:
        candidates: what may be spoken.
        voices: of espeak-ng, which take turns.
        codec: makes tokens of it.
        vocabulary: of these.
        n: pairs at most.

    Raises:
        ModuleNotFoundError: espeakng-loader is not installed.
        RuntimeError: espeak-ng failed.
    """
    requests = [
        [
            Request(f"shard_000/{number:04d}_{word}.wav", word, voices[number % len(voices)], WORDS_PER_MINUTE, PITCH)
            for word in (*quadruple.words, *quadruple.others)
        ]
        for number, quadruple in enumerate(candidates)
    ]
    with tempfile.TemporaryDirectory() as temporary:
        folder, shard = Path(temporary), [request for group in requests for request in group]
        synthesise(folder, [shard])
        seconds = shard_seconds(folder, shard) or {}

        def difference(number: int) -> float:
            a, b, c, d = (seconds[request.file] for request in requests[number])
            return abs(a + b - c - d)

        chosen = sorted(sorted(range(len(requests)), key=difference)[:n])
        return [
            _pair(
                number,
                [_document(folder / r.file, codec, vocabulary) for r in requests[number]],
                requests[number][0].voice,
            )
            for number in chosen
        ]


def _pair(number: int, documents: Sequence[np.ndarray], voice: str) -> Pair:
    sides = [Side(document, (slice(1, len(document)),)) for document in documents]
    return Pair(WORDS, number, voice, tuple(sides[:2]), tuple(sides[2:]))


def _document(path: Path, codec: Codec, vocabulary: Vocabulary) -> np.ndarray:
    audio, sample_rate = read_audio(path)
    return vocabulary.document(codec.encode(torch.from_numpy(resample(audio, sample_rate, codec.sample_rate))))
