"""Which minimal pairs a corpus allows, task by task."""

from collections.abc import Callable, Mapping
from itertools import islice

import numpy as np

from pipeline.evaluation.pair_tasks import (
    CONTINUATION,
    REVERSED,
    SEGMENTS,
    SPEAKER,
    WORDS,
    Geometry,
    Pair,
    exchanged_pairs,
    reversed_pairs,
    segment_pairs,
)
from pipeline.evaluation.spoken_words import CANDIDATES_PER_PAIR, known_words, quadruples, word_pairs
from pipeline.evaluation.subject import Subject
from pipeline.preparation.origins import read_origins
from pipeline.provenance.prepared_data import read_prepared_identity

# What the corpus is spoken with where espeak-ng did not speak it.
OTHER_VOICES = ("en-us",)


class NotPossibleError(Exception):
    """Why a task's pairs cannot be made of this corpus."""


def geometry_of(subject: Subject) -> Geometry:
    """Where utterances are cut.

    Raises:
        NotPossibleError: the model sees too little of them at once.
    """
    config, rate = subject.settings.pairs, subject.codec.frame_rate
    reach = subject.context or subject.decoder.config.max_position_embeddings
    part, margin = round(config.seconds * rate), round(config.margin_seconds * rate)
    geometry = Geometry.within(part, margin, subject.vocabulary.n_codebooks, reach)
    if not geometry.is_possible:
        seconds = reach / (subject.vocabulary.n_codebooks * rate)
        raise NotPossibleError(f"the model looks back over {seconds:.2f} s of speech, too little for parts and margins")
    return geometry


def _speakers(subject: Subject) -> list[str]:
    return [origin.speaker for origin in subject.origins]


def _draws(subject: Subject, task: str) -> np.random.Generator:
    return np.random.default_rng((subject.settings.seed, list(TASKS).index(task)))


def _continuation(subject: Subject) -> list[Pair]:
    return _exchanged(subject, CONTINUATION, lambda one, other: one == other)


def _speaker(subject: Subject) -> list[Pair]:
    n_speakers = len(set(_speakers(subject)))
    if n_speakers < 2:
        known = any(_speakers(subject))
        raise NotPossibleError("there is one speaker" if known else "the prepared data do not tell who speaks")
    return _exchanged(subject, SPEAKER, lambda one, other: one != other)


def _exchanged(subject: Subject, task: str, may_exchange: Callable[[str, str], bool]) -> list[Pair]:
    geometry, speakers, rng = geometry_of(subject), _speakers(subject), _draws(subject, task)
    return _some(exchanged_pairs(task, subject.test, speakers, geometry, may_exchange, subject.settings.pairs.n, rng))


def _segments(subject: Subject) -> list[Pair]:
    geometry, rng = geometry_of(subject), _draws(subject, SEGMENTS)
    return _some(segment_pairs(subject.test, _speakers(subject), geometry, subject.settings.pairs.n, rng))


def _reversed(subject: Subject) -> list[Pair]:
    geometry, rng = geometry_of(subject), _draws(subject, REVERSED)
    return _some(reversed_pairs(subject.test, _speakers(subject), geometry, subject.settings.pairs.n, rng))


def _some(pairs: list[Pair]) -> list[Pair]:
    if not pairs:
        raise NotPossibleError("held-out utterances are too short, or too few (see evaluate.pairs.seconds)")
    return pairs


def _words(subject: Subject) -> list[Pair]:
    geometry_of(subject)
    n = subject.settings.pairs.n
    known = known_words(origin.transcript for origin in read_origins(subject.train))
    if not known:
        raise NotPossibleError("the prepared data have no transcripts to tell which words the model has heard")
    candidates = list(islice(quadruples(known, subject.settings.seed), CANDIDATES_PER_PAIR * n))
    if not candidates:
        raise NotPossibleError(
            f"of the {len(known)} words that the model has heard, no two can exchange last syllables"
        )
    own = read_prepared_identity(subject.prepared).settings.get("data.voices")
    voices = subject.settings.pairs.voices or own or OTHER_VOICES
    try:
        return word_pairs(candidates, voices, subject.codec, subject.vocabulary, n)
    except ModuleNotFoundError:
        raise NotPossibleError(
            "espeakng-loader, which speaks them, is not installed: pip install 'melisma[espeak]'"
        ) from None


TASKS: Mapping[str, Callable[[Subject], list[Pair]]] = {
    CONTINUATION: _continuation,
    SPEAKER: _speaker,
    SEGMENTS: _segments,
    REVERSED: _reversed,
    WORDS: _words,
}
