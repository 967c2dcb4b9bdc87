"""The first pass over a corpus: what every recording holds, and whether it can be used."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from pipeline.audio.configuration import ScreeningConfig
from pipeline.audio.corpora.corpus import Corpus, Recording
from pipeline.audio.reading import UnusableRecording
from pipeline.audio.screening import screen
from pipeline.audio.splitting import find_duplicates
from pipeline.plumbing.worker_processes import map_parallel


@dataclass(frozen=True)
class Inspection:
    """What was found in one recording.

    Attributes:
        recording: the recording.
        seconds: its length; 0 when it could not be read.
        sha256: of its samples, so that a copy under another name is known; empty when it could not be read.
        reason: why it is not used; empty when it is.
    """

    recording: Recording
    seconds: float = 0.0
    sha256: str = ""
    reason: str = ""


def inspect_corpus(
    corpus: Corpus, recordings: Sequence[Recording], min_seconds: float, config: ScreeningConfig, workers: int | None
) -> list[Inspection]:
    """Read every recording once, on all cores; copies of an earlier recording are marked as such.

    Raises:
        ValueError: when more than `config.max_rejected_fraction` of the recordings cannot be used.
    """
    inspect = partial(_inspect, corpus=corpus, min_seconds=min_seconds, config=config)
    inspections = list(map_parallel(inspect, recordings, workers, "inspecting", "recording"))
    duplicates = find_duplicates({i.recording.id: i.sha256 for i in inspections if not i.reason})
    inspections = [
        Inspection(i.recording, i.seconds, i.sha256, f"duplicate of {duplicates[i.recording.id]}")
        if i.recording.id in duplicates
        else i
        for i in inspections
    ]
    rejected = [i for i in inspections if i.reason]
    if len(rejected) > config.max_rejected_fraction * len(inspections):
        examples = "; ".join(f"{i.recording.id}: {i.reason}" for i in rejected[:5])
        raise ValueError(
            f"{len(rejected)} of {len(inspections)} recordings cannot be used, more than "
            f"data.screening.max_rejected_fraction ({config.max_rejected_fraction}) allows. The first: {examples}. "
            "Mend or remove them, or raise the fraction."
        )
    return inspections


def _inspect(recording: Recording, corpus: Corpus, min_seconds: float, config: ScreeningConfig) -> Inspection:
    try:
        audio, sample_rate = corpus.read(recording)
    except UnusableRecording as error:
        return Inspection(recording, reason=error.reason)
    seconds = len(audio) / sample_rate
    digest = hashlib.sha256(np.ascontiguousarray(audio).tobytes()).hexdigest()
    try:
        screen(audio, sample_rate, min_seconds, config)
    except UnusableRecording as error:
        return Inspection(recording, seconds, digest, error.reason)
    return Inspection(recording, seconds, digest)
