"""What has to be known before reading a comparison, in sentences."""

from collections.abc import Iterator, Sequence

from pipeline.comparison.configuration import ComparisonConfig
from pipeline.comparison.evaluated import Evaluated
from pipeline.comparison.measure import PairedMeasure
from pipeline.comparison.measures import shared_judges
from pipeline.comparison.pairing import pair_clips, pair_utterances, same_data, same_training
from pipeline.evaluation.clip import GENERATED


def notes(a: Evaluated, b: Evaluated, measures: Sequence[PairedMeasure], config: ComparisonConfig) -> list[str]:
    """Everything of the kind.

    Args:
        a: the baseline.
        b: the model that is held against it.
        measures: of both.
        config: what is asked of a difference.
    """
    return [*_of_codecs(a, b), *_of_what_is_left_out(a, b), *_of_judges(a, b), *_of_trainings(a, b, measures, config)]


def _of_codecs(a: Evaluated, b: Evaluated) -> Iterator[str]:
    if not same_data(a, b):
        yield (
            "The codecs differ. Nats a token and distances to decoded speech mean other things in each: bits a second "
            "and distances to undecoded speech are compared instead."
        )


def _of_what_is_left_out(a: Evaluated, b: Evaluated) -> Iterator[str]:
    left_out = pair_utterances(a, b).n_left_out + pair_clips(a, b, GENERATED).n_left_out
    if left_out:
        yield f"{left_out} utterances and clips that only one of them has are left out."


def _of_judges(a: Evaluated, b: Evaluated) -> Iterator[str]:
    left_out = sorted((a.judges.keys() | b.judges.keys()) - set(shared_judges(a, b)))
    if left_out:
        yield (
            f"Judges who know one of them alone, or judged with other weights, are left out ({', '.join(left_out)}): "
            "evaluate both where the same judges are installed (make judges)."
        )


def _of_trainings(
    a: Evaluated, b: Evaluated, measures: Sequence[PairedMeasure], config: ComparisonConfig
) -> Iterator[str]:
    if a.folder.resolve() == b.folder.resolve():
        yield "Both are one and the same evaluation."
    elif same_training(a, b):
        yield "Both are of one training: how far trainings of other seeds lie apart does not count."
    elif config.training_spread is not None:
        unknown = [m.measure.title for m in measures if m.measure.name not in config.training_spread]
        if unknown:
            yield (
                f"How far trainings of other seeds lie apart is not known of {', '.join(unknown)}: verdicts on these "
                "are of the very weights (comparison.training_spread)."
            )
