"""Every measure that two evaluations share."""

from collections.abc import Iterator, Sequence

import numpy as np

from pipeline.audio.measures.frechet import FrechetStatistics
from pipeline.comparison.evaluated import Evaluated
from pipeline.comparison.measure import Measure, PairedMeasure
from pipeline.comparison.pairing import (
    column,
    pair_clips,
    pair_judgements,
    pair_minimal_pairs,
    pair_utterances,
    same_data,
)
from pipeline.comparison.tables import Row
from pipeline.evaluation.clip import GENERATED
from pipeline.statistics.frechet import ClipMoments, FrechetDistance
from pipeline.statistics.statistic import Deviation, Median, RatioOfSums

LOSS = Measure("eval/loss", "Test loss", "nats a token", "utterances")
BITS = Measure("eval/bits_per_second", "Information rate", "bits a second", "utterances")
DISTANCE = Measure("audio/fd", "Fréchet distance", "dB²", "clips")
UNDECODED = Measure("audio/fd_undecoded", "Fréchet distance to undecoded speech", "dB²", "clips")
# Measures of a clip that ought to be where real speech is, by their column.
NEAR_REAL = {
    "flatness": Measure("audio/flatness_db", "Flatness, from real speech", "dB", "clips"),
    "mel_flux_db": Measure("audio/mel_flux_db", "Mel flux, from real speech", "dB", "clips"),
    "modulation_depth": Measure("audio/modulation_depth", "Modulation depth, from real speech", "", "clips"),
}
NATS_PER_BIT = float(np.log(2.0))


def paired_measures(a: Evaluated, b: Evaluated) -> list[PairedMeasure]:
    """What of two models can be compared: in another codec's tokens neither nats a token nor distances to decoded
    speech are, but bits a second and distances to undecoded speech."""
    return [*_losses(a, b), *_minimal_pairs(a, b), *_sound(a, b), *_judgements(a, b)]


def _losses(a: Evaluated, b: Evaluated) -> Iterator[PairedMeasure]:
    pairing = pair_utterances(a, b)
    if not len(pairing):
        return
    design = pairing.design()
    if not same_data(a, b):
        yield PairedMeasure(BITS, _bits(pairing.a), _bits(pairing.b), design)
        return
    yield PairedMeasure(LOSS, _loss(pairing.a), _loss(pairing.b), design)


def _minimal_pairs(a: Evaluated, b: Evaluated) -> Iterator[PairedMeasure]:
    if not same_data(a, b):
        return
    pairing = pair_minimal_pairs(a, b)
    for task in dict.fromkeys(row["task"] for row in pairing.a):
        of_task = pairing.where("task", task)
        measure = Measure(f"eval/pairs/{task}", f"Minimal pairs: {task}", "", "pairs", lower_is_better=False)
        yield PairedMeasure(measure, _accuracy(of_task.a), _accuracy(of_task.b), of_task.design())


def _sound(a: Evaluated, b: Evaluated) -> Iterator[PairedMeasure]:
    pairing = pair_clips(a, b, GENERATED)
    if not len(pairing):
        return
    design = pairing.design()
    measure, reference = (DISTANCE, "train_codec") if same_data(a, b) else (UNDECODED, "train_real")
    yield PairedMeasure(measure, _distance(a, pairing.a, reference), _distance(b, pairing.b, reference), design)
    for name, measure in NEAR_REAL.items():
        yield PairedMeasure(measure, _deviation(a, pairing.a, name), _deviation(b, pairing.b, name), design)


def _judgements(a: Evaluated, b: Evaluated) -> Iterator[PairedMeasure]:
    """What judges said of the clips, where they were the same to both."""
    pairing = pair_judgements(a, b)
    for judge in shared_judges(a, b):
        of_judge = pairing.where("judge", judge)
        for name, shown in a.judges[judge]["measures"].items():
            found = of_judge.where("measure", name)
            if len(found):
                lower_is_better = shown["better"] == "lower"
                title = f"{shown['heading']} ({judge})"
                measure = Measure(f"judge/{judge}/{name}", title, "", "clips", lower_is_better)
                yield PairedMeasure(measure, _mean(found.a), _mean(found.b), found.design())


def shared_judges(a: Evaluated, b: Evaluated) -> list[str]:
    """Those who have judged both: of one name, and with the same weights."""
    return [name for name, judge in a.judges.items() if b.judges.get(name) == judge]


def _mean(rows: Sequence[Row]) -> RatioOfSums:
    return RatioOfSums.mean(column(rows, "value"))


def _loss(rows: Sequence[Row]) -> RatioOfSums:
    return RatioOfSums(column(rows, "nats"), column(rows, "n_tokens"))


def _bits(rows: Sequence[Row]) -> RatioOfSums:
    return RatioOfSums(column(rows, "nats") / NATS_PER_BIT, column(rows, "seconds"))


def _accuracy(rows: Sequence[Row]) -> RatioOfSums:
    """The share of pairs whose true side is the likelier; a tie is half a success, as chance would have it."""
    margin = column(rows, "nats_false") - column(rows, "nats_true")
    return RatioOfSums.mean(np.where(np.isnan(margin), np.nan, (margin > 0) + 0.5 * (margin == 0)))


def _distance(evaluated: Evaluated, clips: Sequence[Row], reference: str) -> FrechetDistance:
    """The distance of clips to one of the references that lie beside their moments."""
    tensors = evaluated.moments()

    def named(prefix: str) -> dict[str, np.ndarray]:
        return {name.removeprefix(f"{prefix}/"): t for name, t in tensors.items() if name.startswith(f"{prefix}/")}

    places = {kind: [int(row["place"]) for row in clips if row["kind"] == kind] for kind in GENERATED}
    # In the order of the clips, which come kind by kind.
    moments = ClipMoments.join([_moments(named(kind)).take(chosen) for kind, chosen in places.items() if chosen])
    return FrechetDistance(moments, FrechetStatistics.from_tensors(named(f"reference/{reference}")))


def _moments(tensors: dict[str, np.ndarray]) -> ClipMoments:
    return ClipMoments(tensors["count"], tensors["mean"], tensors["scatter"])


def _deviation(evaluated: Evaluated, clips: Sequence[Row], name: str) -> Deviation:
    """How far the median lies from that of real speech."""
    values = column(clips, name)
    reference = evaluated.metrics[f"audio/{name}_reference"]
    if name == "flatness":
        values, reference = 10 * np.log10(values), 10 * float(np.log10(reference))
    return Deviation(Median(values), reference)
