"""The first pass over a corpus: what every recording holds, and whether it can be used."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from pipeline.audio.configuration import ScreeningConfig
from pipeline.audio.corpora.corpus import Corpus, Recording
from pipeline.audio.reading import UnusableRecording
from pipeline.audio.screening import screen
from pipeline.audio.splitting import find_duplicates
from pipeline.audio.survey import Take, survey
from pipeline.plumbing.names import printable
from pipeline.plumbing.worker_processes import map_parallel


@dataclass(frozen=True)
class Inspection:
    """What was found in one recording.

    Attributes:
        recording: the recording.
        seconds: the length of what is used of it; 0 when it could not be read.
        sha256: of the samples that are used, so that a copy under another name is known; empty when there are none.
        reason: why it is not used; empty when it is.
        note: what else is to be said: what its header has wrong, or what is missing although the rest is used.
        take: which samples are used; None when it could not be read.
    """

    recording: Recording
    seconds: float = 0.0
    sha256: str = ""
    reason: str = ""
    note: str = ""
    take: Take | None = None


def inspect_corpus(
    corpus: Corpus, recordings: Sequence[Recording], min_seconds: float, config: ScreeningConfig, workers: int | None
) -> list[Inspection]:
    """Read every recording once, on all cores; copies of an earlier recording are marked as such."""
    inspect = partial(_inspect, corpus=corpus, min_seconds=min_seconds, config=config)
    inspections = list(map_parallel(inspect, recordings, workers, "inspecting", "recording", on_death=_dead))
    duplicates = find_duplicates({i.recording.id: i.sha256 for i in inspections if not i.reason})
    return [
        replace(i, reason=f"duplicate of {duplicates[i.recording.id]}") if i.recording.id in duplicates else i
        for i in inspections
    ]


def require_usable(inspections: Sequence[Inspection], config: ScreeningConfig) -> None:
    """Raise a ValueError when more than `config.max_rejected_fraction` of the recordings cannot be used."""
    rejected = [i for i in inspections if i.reason]
    if len(rejected) > config.max_rejected_fraction * len(inspections):
        examples = "; ".join(f"{printable(i.recording.id)}: {i.reason}" for i in rejected[:5])
        raise ValueError(
            f"{len(rejected)} of {len(inspections)} recordings cannot be used, more than "
            f"data.screening.max_rejected_fraction ({config.max_rejected_fraction}) allows. The first: {examples}. "
            "Mend or remove them, or raise the fraction."
        )


def _inspect(recording: Recording, corpus: Corpus, min_seconds: float, config: ScreeningConfig) -> Inspection:
    if recording.defect:
        return Inspection(recording, reason=recording.defect, note=recording.note)
    try:
        found = survey(corpus.source(recording), config.silence_rms, config.max_hours * 3600)
    except UnusableRecording as error:
        return Inspection(recording, reason=error.reason, note=recording.note)
    reason = ""
    try:
        screen(found, min_seconds, config)
    except UnusableRecording as error:
        reason = error.reason
    damage = [f"damaged, {found.damage}: what lies before is used"] if found.damage and not reason else []
    note = "; ".join([*damage, *found.notes, *([recording.note] if recording.note else [])])
    return Inspection(recording, found.seconds, found.sha256, reason, note, found.take)


def _dead(recording: Recording) -> Inspection:
    return Inspection(recording, reason="decoding it killed the process", note=recording.note)
