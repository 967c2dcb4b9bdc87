"""Bodies of speech: the clips of a kind together, and what they measure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from pipeline.audio.measures.frechet import FrechetStatistics, frechet_distance
from pipeline.audio.measures.summary import ClipMeasures, SpeechMeasures
from pipeline.evaluation.clip import GENERATED, Clip
from pipeline.evaluation.speakers import Speakers
from pipeline.preparation.origins import Origin
from pipeline.statistics.bootstrap import bootstrap
from pipeline.statistics.frechet import ClipMoments, FrechetDistance
from pipeline.statistics.interval import Interval
from pipeline.statistics.resampling import Design
from pipeline.statistics.statistic import Median

ALL_GENERATED = "generated"
# A distance takes a third of a millisecond; with so many, bounds are known to a twentieth of their width.
N_RESAMPLES = 500


@dataclass(frozen=True)
class Body:
    """Clips that are measured together.

    Attributes:
        name: their kind, or what several kinds are together.
        clips: what each measures.
        design: how they came about.
    """

    name: str
    clips: Sequence[ClipMeasures]
    design: Design


@dataclass(frozen=True)
class BodyMeasures:
    """What a body measures.

    Attributes:
        flatness: the median spectral flatness of its clips.
        flatness_db: the same as 10 log10.
        fd: the Fréchet distance to training speech through the codec.
        fd_undecoded: that to training speech as it was recorded: `fd` hides what the codec loses, this shows it.
        mel_flux_db: the median mel flux.
        modulation_depth: the median modulation depth.
    """

    flatness: Interval
    flatness_db: Interval
    fd: Interval
    fd_undecoded: Interval
    mel_flux_db: Interval
    modulation_depth: Interval

    def row(self) -> dict[str, float]:
        """A row of comparison.csv: every measure, and then the bounds of each."""
        intervals: dict[str, Interval] = {f.name: getattr(self, f.name) for f in fields(self)}
        row = {name: interval.value for name, interval in intervals.items()}
        for name, interval in intervals.items():
            row |= {f"{name}_low": interval.low, f"{name}_high": interval.high}
        return row


def gather(
    clips: Sequence[Clip], measured: Sequence[ClipMeasures], origins: Sequence[Origin], speakers: Speakers
) -> list[Body]:
    """The clips of each kind, and all that were generated.

    Args:
        clips: of all kinds.
        measured: what each measures.
        origins: of the test documents.
        speakers: whether the model has heard them.
    """
    members: dict[str, list[int]] = {}
    for place, clip in enumerate(clips):
        if clip.kind in GENERATED:
            members.setdefault(ALL_GENERATED, []).append(place)
        members.setdefault(clip.kind, []).append(place)
    return [
        Body(
            name, [measured[place] for place in places], _design([clips[place] for place in places], origins, speakers)
        )
        for name, places in members.items()
    ]


def measure_body(body: Body, reference: FrechetStatistics, undecoded: FrechetStatistics) -> BodyMeasures:
    """Measure a body, its distances being those to `reference` and `undecoded`."""

    def median(values: Sequence[float]) -> Interval:
        return bootstrap(Median(np.array(values)), body.design)

    flatness = median([clip.flatness for clip in body.clips])
    moments = ClipMoments.of([clip.statistics for clip in body.clips])
    distances = (FrechetDistance(moments, speech) for speech in (reference, undecoded))
    fd, fd_undecoded = (bootstrap(distance, body.design, N_RESAMPLES).map(_at_least_zero) for distance in distances)
    return BodyMeasures(
        flatness,
        flatness.map(lambda ratio: 10 * math.log10(ratio)),
        fd,
        fd_undecoded,
        median([clip.mel_flux_db for clip in body.clips]),
        median([clip.modulation_depth for clip in body.clips]),
    )


def measures_of_whole(
    speech: SpeechMeasures, reference: FrechetStatistics, undecoded: FrechetStatistics
) -> BodyMeasures:
    """The measures of a body of which only those of all clips together were kept, which gives no intervals."""
    values = (
        speech.flatness,
        speech.flatness_db,
        frechet_distance(speech.statistics, reference),
        frechet_distance(speech.statistics, undecoded),
        speech.mel_flux_db,
        speech.modulation_depth,
    )
    return BodyMeasures(*map(Interval.unknown, values))


def _at_least_zero(distance: float) -> float:
    """Once what few clips add is taken off, chance can leave a small distance below zero, where there are none."""
    return max(distance, 0.0)


def _design(clips: Sequence[Clip], origins: Sequence[Origin], speakers: Speakers) -> Design:
    """How clips came about: those of one document, as the continuations of one prompt, belong together."""
    return speakers.design(
        ["" if clip.document is None else origins[clip.document].speaker for clip in clips],
        [(clip.kind, clip.number if clip.document is None else f"document {clip.document}") for clip in clips],
        [clip.kind for clip in clips],
    )
