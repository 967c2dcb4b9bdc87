"""Models held against one: all measures that both share, tested together."""

from collections.abc import Sequence
from typing import Any

from pipeline.comparison.configuration import ComparisonConfig
from pipeline.comparison.evaluated import Evaluated
from pipeline.comparison.measure import PairedMeasure
from pipeline.comparison.measures import paired_measures
from pipeline.comparison.notes import notes
from pipeline.comparison.pairing import require_comparable, same_training
from pipeline.comparison.result import Comparison, Contest, Outcome
from pipeline.plumbing.nested import leaves
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
            _key(number, measure): measure.pair(
                0.0 if same_training(baseline, other) else config.spread_of(measure.measure.name)
            )
            for number, (other, measures) in enumerate(zip(others, measured, strict=True))
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
                notes(baseline, other, measures, config),
                changed(baseline, other),
            )
            for number, (other, measures) in enumerate(zip(others, measured, strict=True))
        ],
    )


def _key(number: int, measure: PairedMeasure) -> str:
    return f"{number} {measure.measure.name}"


def changed(a: Evaluated, b: Evaluated) -> dict[str, tuple[Any, Any]]:
    """Settings of trainings and evaluations that differ, {name: (of a, of b)}, as far as they are at hand."""
    trainings_known = bool(a.trained_with and b.trained_with)
    ours, theirs = (
        {**dict(leaves({"evaluate": model.settings})), **(model.trained_with if trainings_known else {})}
        for model in (a, b)
    )
    names = sorted(ours.keys() | theirs.keys())
    return {name: (ours.get(name), theirs.get(name)) for name in names if ours.get(name) != theirs.get(name)}
