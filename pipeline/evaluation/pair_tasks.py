"""What minimal pairs are made of: held-out speech, and the same speech put together wrongly.

Except for words, both sides of a pair hold the same frames, only their order differs: what is likely in itself is
likely on both sides, and cancels. At a join even a bigram notices that something is wrong, so the frames that follow
one within the margin are not scored: joined pairs are a tie to any model that looks back less than the margin.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice, zip_longest
from typing import TypeVar

import numpy as np

from lightning_modules.packing import Documents

CONTINUATION, SPEAKER, SEGMENTS, REVERSED, WORDS = "continuation", "speaker", "segments", "reversed", "words"

# Of a long utterance its beginning is enough: another utterance says more than more of the same.
PARTS_USED = 8

Item = TypeVar("Item")


@dataclass(frozen=True)
class Side:
    """One stretch of speech, and what of it is scored.

    Attributes:
        tokens: a document, or its beginning [T].
        scored: places of the tokens that count, the first token of the document being at 0.
    """

    tokens: np.ndarray
    scored: tuple[slice, ...]


@dataclass(frozen=True)
class Pair:
    """Speech as it is, and as it is not.

    Attributes:
        task: what differs.
        document: the first of the documents that it is made of; pairs of different first documents share none.
        speaker: who speaks there.
        true: stretches that are scored together.
        false: the same number of them.
    """

    task: str
    document: int
    speaker: str
    true: tuple[Side, ...]
    false: tuple[Side, ...]


@dataclass(frozen=True)
class Geometry:
    """Where documents are cut, in frames.

    Attributes:
        part: of what is exchanged, and at least of what goes before.
        margin: after a join, which are not scored.
        n_codebooks: Q, tokens a frame.
    """

    part: int
    margin: int
    n_codebooks: int

    @classmethod
    def within(cls, part: int, margin: int, n_codebooks: int, reach: int) -> "Geometry":
        """Parts of this length, or as long as a model that looks back over `reach` tokens sees two of, after BOS."""
        return cls(min(part, (reach - 1) // n_codebooks // 2), margin, n_codebooks)

    @property
    def is_possible(self) -> bool:
        """Whether anything of half a part is left to be scored."""
        return self.part // 2 > self.margin

    def cut(self, frame: int) -> int:
        """The place of a frame's first token."""
        return 1 + frame * self.n_codebooks

    def frames(self, document: np.ndarray, first: int, last: int) -> np.ndarray:
        """The tokens of the frames from `first` up to `last`."""
        return document[self.cut(first) : self.cut(last)]

    def span(self, first: int, last: int) -> slice:
        """The places of these frames, less the margin after a join before them."""
        return slice(self.cut(first + self.margin), self.cut(last))

    def n_frames(self, n_tokens: int) -> int:
        """Frames of a document that are used: whole ones, as far as few parts reach."""
        return min((int(n_tokens) - 2) // self.n_codebooks, PARTS_USED * self.part)

    def beginning(self, document: np.ndarray) -> np.ndarray:
        """A document, BOS and the frames that are used."""
        return document[: self.cut(self.n_frames(len(document)))]


def exchanged_pairs(
    task: str,
    documents: Documents,
    speakers: Sequence[str],
    geometry: Geometry,
    may_exchange: Callable[[str, str], bool],
    n: int,
    rng: np.random.Generator,
) -> list[Pair]:
    """Two utterances exchange what follows the same place: in a true pair each goes on as itself.

    Args:
        task: the pairs' name.
        documents: held-out utterances, each of which has one partner at most.
        speakers: of the documents.
        geometry: where they are cut.
        may_exchange: whether utterances of these two speakers do.
        n: pairs at most.
        rng: chooses partners.
    """

    def of_partners(first: int, second: int) -> Iterator[Pair]:
        both = geometry.beginning(documents[first]), geometry.beginning(documents[second])
        shorter = min(geometry.n_frames(documents.lengths[number]) for number in (first, second))
        for cut in range(geometry.part, shorter - geometry.part + 1, geometry.part // 2):
            end, scored = cut + geometry.part, (geometry.span(cut, cut + geometry.part),)
            # The one begins, the other goes on: from BOS up to the cut, and from there to the end.
            mixed = [
                np.concatenate((begins[: geometry.cut(cut)], geometry.frames(goes_on, cut, end)))
                for begins, goes_on in (both, both[::-1])
            ]
            yield Pair(
                task,
                first,
                speakers[first],
                tuple(Side(document, scored) for document in both),
                tuple(Side(document, scored) for document in mixed),
            )

    # Of twice as many as are needed, so that most find a partner.
    order = some_of_length(documents, geometry, 2 * geometry.part, 4 * n, rng)
    partners = match(order, lambda a, b: may_exchange(speakers[a], speakers[b]))
    return list(islice(interleave([of_partners(*both) for both in partners]), n))


def segment_pairs(
    documents: Documents, speakers: Sequence[str], geometry: Geometry, n: int, rng: np.random.Generator
) -> list[Pair]:
    """Two neighbouring half parts of an utterance change places; what follows is scored too."""
    half = geometry.part // 2

    def of_document(number: int) -> Iterator[Pair]:
        document, n_frames = geometry.beginning(documents[number]), geometry.n_frames(documents.lengths[number])
        for first in range(half, n_frames - 3 * half + 1, 3 * half):
            places = first, first + half, first + 2 * half, first + 3 * half
            scored = tuple(geometry.span(*bounds) for bounds in zip(places, places[1:], strict=False))
            swapped = np.concatenate(
                (
                    document[: geometry.cut(places[0])],
                    geometry.frames(document, places[1], places[2]),
                    geometry.frames(document, places[0], places[1]),
                    geometry.frames(document, places[2], places[3]),
                )
            )
            yield Pair(SEGMENTS, number, speakers[number], (Side(document, scored),), (Side(swapped, scored),))

    order = some_of_length(documents, geometry, 4 * half, n, rng)
    return list(islice(interleave([of_document(number) for number in order]), n))


def reversed_pairs(
    documents: Documents, speakers: Sequence[str], geometry: Geometry, n: int, rng: np.random.Generator
) -> list[Pair]:
    """A part of an utterance, its silent ends left alone, runs backwards; codes stay in order within a frame."""
    half, part = geometry.part // 2, geometry.part

    def of_document(number: int) -> Iterator[Pair]:
        document, n_frames = geometry.beginning(documents[number]), geometry.n_frames(documents.lengths[number])
        for first in range(half, n_frames - part + 1, half + part):
            backwards = geometry.frames(document, first, first + part).reshape(part, -1)[::-1].ravel()
            # Less the margin at both ends, so that the same frames count on both sides.
            scored = (geometry.span(first, first + part - geometry.margin),)
            false = np.concatenate((document[: geometry.cut(first)], backwards))
            yield Pair(REVERSED, number, speakers[number], (Side(document, scored),), (Side(false, scored),))

    order = some_of_length(documents, geometry, half + part, n, rng)
    return list(islice(interleave([of_document(number) for number in order]), n))


def some_of_length(
    documents: Documents, geometry: Geometry, n_frames: int, n: int, rng: np.random.Generator
) -> list[int]:
    """Numbers of at most `n` documents that have so many frames, in random order."""
    long_enough = [i for i, length in enumerate(documents.lengths) if geometry.n_frames(length) >= n_frames]
    return [int(i) for i in rng.permutation(long_enough)[:n]]


def match(order: Sequence[Item], fits: Callable[[Item, Item], bool]) -> list[tuple[Item, Item]]:
    """Pair each item off with the next one that fits, if there is one left."""
    left, pairs = list(order), []
    while left:
        first = left.pop(0)
        place = next((i for i, second in enumerate(left) if fits(first, second)), None)
        if place is not None:
            pairs.append((first, left.pop(place)))
    return pairs


def interleave(groups: Sequence[Iterator[Item]]) -> Iterator[Item]:
    """The first item of each group, then the second of each that has one, and so on."""
    missing = object()
    rounds = chain.from_iterable(zip_longest(*groups, fillvalue=missing))
    return (item for item in rounds if item is not missing)  # type: ignore[misc]
