"""Reads utterances out of a corpus, a long recording no more often than it must."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

import numpy as np

from pipeline.audio.corpora.corpus import Corpus
from pipeline.audio.reading import UnusableRecording, read_take
from pipeline.audio.resampling import Sound, resample
from pipeline.audio.source import Source
from pipeline.audio.stretch import open_sound
from pipeline.audio.survey import Take, taken_blocks
from pipeline.audio.utterances import Piece, Utterance, assemble
from pipeline.plumbing.names import printable
from pipeline.preparation.inspection import Inspection


class Inspections(Protocol):
    """What was found in each recording of a corpus, by its id."""

    def __getitem__(self, recording: str) -> Inspection: ...


@dataclass(frozen=True)
class UtteranceReader:
    """Reads utterances out of a corpus.

    Attributes:
        corpus: where recordings are read from.
        inspections: what was found in its recordings.
        sample_rate: to which they are resampled, in Hz.
        gap_seconds: the silence between joined recordings.
    """

    corpus: Corpus
    inspections: Inspections
    sample_rate: int
    gap_seconds: float

    def __call__(self, utterance: Utterance) -> np.ndarray:
        """The utterance's samples [S], float32 mono."""
        return next(self.many([utterance]))

    def many(self, utterances: Iterable[Utterance]) -> Iterator[np.ndarray]:
        """Yield the samples [S] of one utterance after another, resampled."""
        return (resample(*sound, self.sample_rate) for sound in self.recorded(utterances))

    def recorded(self, utterances: Iterable[Utterance]) -> Iterator[Sound]:
        """Yield one utterance after another at the rate that it was recorded at.

        A recording is decoded once for all its pieces that follow one another in time, as `by_recording` puts them.
        """
        for name, group in groupby(utterances, cut_from):
            if name is None:
                for utterance in group:
                    yield assemble(utterance, self._read_piece, self.gap_seconds)
            else:
                for pieces in _ascending([utterance.pieces[0] for utterance in group]):
                    yield from self._cut(name, pieces)

    def _read_piece(self, piece: Piece) -> Sound:
        """A recording of which an utterance holds all."""
        source, take = self._source(piece.recording)
        with _named(piece.recording):
            return read_take(source, take)

    def _cut(self, name: str, pieces: Sequence[Piece]) -> Iterator[Sound]:
        source, take = self._source(name)
        with _named(name), open_sound(source) as stream:
            rate = stream.sample_rate
            spans = [(round((p.start or 0.0) * rate), round((p.stop or 0.0) * rate)) for p in pieces]
            for audio in cut_spans(taken_blocks(stream, take), spans):
                yield audio, rate

    def _source(self, name: str) -> tuple[Source, Take]:
        inspection = self.inspections[name]
        if inspection.take is None:
            raise ValueError(f"{name} was not readable when it was inspected ({inspection.reason}).")
        return self.corpus.source(inspection.recording), inspection.take


def cut_from(utterance: Utterance) -> str | None:
    """The recording that an utterance is a piece of; None where it holds whole recordings."""
    first = utterance.pieces[0]
    return None if first.start is None else first.recording


def by_recording(utterances: Sequence[Utterance]) -> list[Utterance]:
    """The same utterances, the pieces of a recording side by side and in time, where its first one stood.

    Utterances of whole recordings stay in their order.
    """
    places: dict[str, int] = {}
    keys = []
    for index, utterance in enumerate(utterances):
        name = cut_from(utterance)
        place = index if name is None else places.setdefault(name, index)
        keys.append((place, utterance.pieces[0].start or 0.0, index))
    return [utterances[index] for _, _, index in sorted(keys)]


def cut_spans(blocks: Iterable[np.ndarray], spans: Sequence[tuple[int, int]]) -> Iterator[np.ndarray]:
    """Yield the samples of each span [first, last) of a recording that comes in blocks, in one pass.

    The spans are in order and do not overlap; at most one of them and a block are in memory.

    Raises:
        ValueError: the recording ends before a span does.
    """
    remaining = iter(blocks)
    held, offset = np.zeros(0, np.float32), 0
    for first, last in spans:
        parts = [held[max(0, first - offset) : max(0, last - offset)]]
        while (end := offset + len(held)) < last:
            block = next(remaining, None)
            if block is None:
                raise ValueError(f"a recording ends at sample {end}, before the end of a piece at {last}.")
            held, offset = block, end
            parts.append(held[max(0, first - offset) : max(0, last - offset)])
        yield np.concatenate(parts)


def _ascending(pieces: Sequence[Piece]) -> Iterator[list[Piece]]:
    """Split pieces of one recording into runs that follow one another in time."""
    run: list[Piece] = []
    for piece in pieces:
        if run and (piece.start or 0.0) < (run[-1].stop or 0.0) - 1e-9:
            yield run
            run = []
        run.append(piece)
    yield run


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Name the recording that cannot be read a second time."""
    try:
        yield
    except UnusableRecording as error:
        raise ValueError(
            f"{printable(name)}: {error.reason}; leave the corpus alone while it is prepared, "
            "and run prepare-data again."
        ) from error
