"""What a training document holds: recordings joined, cut, or as they are."""

import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.audio.configuration import UtteranceConfig
from pipeline.audio.resampling import resample


@dataclass(frozen=True)
class Piece:
    """A stretch of a recording, in seconds; the whole of it where `start` and `stop` are None."""

    recording: str
    start: float | None = None
    stop: float | None = None


@dataclass(frozen=True)
class Utterance:
    """Pieces of one speaker's recordings, all of one split, one after another."""

    id: str
    speaker: str
    split: str
    pieces: tuple[Piece, ...]


def lay_out(recordings: Iterable[tuple[str, float]], config: UtteranceConfig, seed: str) -> Iterator[tuple[Piece, ...]]:
    """Yield the pieces of each utterance made of one speaker's recordings of one split.

    Args:
        recordings: the name of each and its length in seconds, sorted by name; of these only those that are short
            enough to be joined are in memory together.
        config: how long utterances are.
        seed: of what is joined with what.
    """
    join_seconds = config.join_seconds or 0.0
    short: dict[str, float] = {}
    for name, seconds in recordings:
        if seconds < join_seconds:
            short[name] = seconds
        elif seconds >= config.min_seconds:
            yield from ((piece,) for piece in _cut(name, seconds, config.max_seconds))
    # Shuffled, because names often tell what is said: one utterance would hold nothing but sevens.
    names = list(short)
    random.Random(seed).shuffle(names)
    for group in _join(names, short, join_seconds, config):
        yield tuple(Piece(name) for name in group)


def _cut(name: str, seconds: float, max_seconds: float) -> list[Piece]:
    """Equal pieces of at most `max_seconds`, or the whole recording."""
    count = math.ceil(seconds / max_seconds - 1e-9)
    if count <= 1:
        return [Piece(name)]
    bounds = [seconds * index / count for index in range(count + 1)]
    return [Piece(name, start, stop) for start, stop in zip(bounds, bounds[1:], strict=False)]


def _join(
    names: Sequence[str], durations: Mapping[str, float], join_seconds: float, config: UtteranceConfig
) -> list[list[str]]:
    """Successive recordings gathered up to `join_seconds`; what is too short for use joins a neighbour beyond that."""
    groups: list[list[str]] = []
    lengths: list[float] = []
    for name in names:
        joined = lengths[-1] + config.gap_seconds + durations[name] if groups else 0.0
        if groups and joined <= (join_seconds if lengths[-1] >= config.min_seconds else config.max_seconds):
            groups[-1].append(name)
            lengths[-1] = joined
        else:
            groups.append([name])
            lengths.append(durations[name])
    fits = len(groups) > 1 and sum(lengths[-2:]) + config.gap_seconds <= config.max_seconds
    if fits and lengths[-1] < config.min_seconds:
        groups[-2].extend(groups.pop())
        lengths.pop()
    return [group for group, length in zip(groups, lengths, strict=True) if length >= config.min_seconds]


def utterance_name(pieces: Sequence[Piece]) -> str:
    """Unique, because no recording is in two joined utterances, and no two pieces start at the same time."""
    first = pieces[0]
    if first.start is not None:
        return f"{first.recording}@{first.start:.3f}"
    return first.recording if len(pieces) == 1 else f"{first.recording}+{len(pieces) - 1}"


def assemble(
    utterance: Utterance, read: Callable[[Piece], tuple[np.ndarray, int]], gap_seconds: float
) -> tuple[np.ndarray, int]:
    """The utterance's samples [S], float32, and their sample rate in Hz.

    Args:
        utterance: what to assemble.
        read: gives the samples and the sample rate of a piece.
        gap_seconds: the silence between two pieces.
    """
    parts: list[np.ndarray] = []
    target_rate = 0
    for piece in utterance.pieces:
        audio, sample_rate = read(piece)
        target_rate = target_rate or sample_rate
        if parts:
            parts.append(np.zeros(round(gap_seconds * target_rate), dtype=np.float32))
        parts.append(resample(audio, sample_rate, target_rate))
    return np.concatenate(parts), target_rate
