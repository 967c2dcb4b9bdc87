"""Models held against one: all measures that both share, tested together."""

from collections.abc import Sequence
from typing import Any

from pipeline.comparison.configuration import ComparisonConfig
from pipeline.comparison.evaluated import Evaluated
from pipeline.comparison.measure import PairedMeasure
from pipeline.comparison.measures import paired_measures
from pipeline.comparison.pairing import pair_clips, pair_utterances, require_comparable, same_data
from pipeline.comparison.result import Comparison, Contest, Outcome
from pipeline.evaluation.clip import GENERATED
from pipeline.plumbing.nested import leaves
from pipeline.provenance.identity import SHORT
from pipeline.statistics.bootstrap import N_RESAMPLES
from pipeline.statistics.paired import compare


def compare_evaluations(
    models: Sequence[Evaluated], config: ComparisonConfig, n_resamples: int = N_RESAMPLES
) -> Comparison:
    """Hold every other model against the first; what is said of all of them together errs in 5 % of cases.

    Args:
        models: two or more, evaluated on the same recordings.
        config: what is asked of a difference.
        n_resamples: how often units are drawn.

    Raises:
        ValueError: when two were not, naming both and the remedy.
    """
    baseline, *others = models
    for other in others:
        require_comparable(baseline, other)
    measured = [paired_measures(baseline, other) for other in others]
    found = compare(
        {
            _key(number, measure): measure.pair(config.spread_of(measure.measure.name))
            for number, measures in enumerate(measured)
            for measure in measures
        },
        n_resamples,
    )
    return Comparison(
        baseline,
        [
            Contest(
                other,
                [Outcome(m.measure, m.values, found[_key(number, m)]) for m in measures],
                config.decisive,
                notes(baseline, other),
                changed(baseline, other),
            )
            for number, (other, measures) in enumerate(zip(others, measured, strict=True))
        ],
    )


def _key(number: int, measure: PairedMeasure) -> str:
    return f"{number} {measure.measure.name}"


def notes(a: Evaluated, b: Evaluated) -> list[str]:
    """What has to be known before reading a comparison."""
    found = []
    if not same_data(a, b):
        found.append(
            "The codecs differ. Nats a token and distances to decoded speech mean other things in each: bits a second "
            "and distances to undecoded speech are compared instead."
        )
    left_out = pair_utterances(a, b).n_left_out + pair_clips(a, b, GENERATED).n_left_out
    if left_out:
        found.append(f"{left_out} utterances and clips that only one of them has are left out.")
    if a.identity.training is not None and a.identity.training == b.identity.training:
        found.append(f"Both are of one training, checkpoint {a.identity.training.checkpoint[:SHORT]}.")
    return found


def changed(a: Evaluated, b: Evaluated) -> dict[str, tuple[Any, Any]]:
    """Settings of trainings and evaluations that differ, {name: (of a, of b)}, as far as they are at hand."""
    trainings_known = bool(a.trained_with and b.trained_with)
    ours, theirs = (
        {**dict(leaves({"evaluate": model.settings})), **(model.trained_with if trainings_known else {})}
        for model in (a, b)
    )
    names = sorted(ours.keys() | theirs.keys())
    return {name: (ours.get(name), theirs.get(name)) for name in names if ours.get(name) != theirs.get(name)}
