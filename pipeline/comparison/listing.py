"""A comparison as one JSON object."""

import math
from typing import Any

from pipeline.comparison.evaluated import Evaluated
from pipeline.comparison.result import Comparison, Contest, Outcome


def as_json(comparison: Comparison) -> dict[str, Any]:
    """Everything that was found; `verdict` and `verdicts` are those of the first model against the baseline."""
    contests = [_contest(contest) for contest in comparison.contests]
    return {
        "baseline": _model(comparison.baseline),
        "verdict": contests[0]["verdict"],
        "verdicts": contests[0]["verdicts"],
        "comparisons": contests,
    }


def _contest(contest: Contest) -> dict[str, Any]:
    return {
        "model": _model(contest.model),
        "verdict": contest.verdict,
        "verdicts": contest.verdicts,
        "decisive": list(contest.decisive),
        "notes": list(contest.notes),
        "changed": {name: list(values) for name, values in contest.changed.items()},
        "measures": [_outcome(outcome) for outcome in contest.outcomes],
    }


def _model(evaluated: Evaluated) -> dict[str, Any]:
    training = evaluated.identity.training
    return {
        "name": evaluated.label,
        "evaluation": str(evaluated.folder),
        "export": None if evaluated.export is None else str(evaluated.export),
        "checkpoint": training.checkpoint if training else None,
        "data": evaluated.identity.data,
    }


def _outcome(outcome: Outcome) -> dict[str, Any]:
    measure, found = outcome.measure, outcome.difference
    return {
        "name": measure.name,
        "title": measure.title,
        "unit": measure.unit,
        "lower_is_better": measure.lower_is_better,
        "baseline": _finite(outcome.values[0]),
        "model": _finite(outcome.values[1]),
        "difference": _finite(found.difference.value),
        "low": _finite(found.difference.low),
        "high": _finite(found.difference.high),
        "verdict": outcome.verdict,
        "n": found.n_units,
        "n_more": found.n_more,
        "of": measure.units,
    }


def _finite(value: float) -> float | None:
    """JSON knows no NaN."""
    return value if math.isfinite(value) else None
