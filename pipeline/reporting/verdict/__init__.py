"""What the evaluation comes to, in plain sentences: the strongest evidence first, but no better than the weakest.

Where a measure has an interval, its worse end is what counts: a model that may be no better than its baseline has not
passed. To judge by another measure, write a function to a `Judgement` and name it in `judge`.
"""

from collections.abc import Mapping
from typing import Any

from pipeline.reporting.judged import JudgedBody
from pipeline.reporting.verdict.judgement import Grade, Judgement, Verdict
from pipeline.reporting.verdict.likelihood import judge_loss, judge_pairs
from pipeline.reporting.verdict.listeners import judge_judges
from pipeline.reporting.verdict.sound import judge_distance, judge_flatness
from pipeline.reporting.verdict.variety import judge_variety

__all__ = ["Grade", "Judgement", "Verdict", "judge"]


def judge(
    metrics: Mapping[str, float],
    gate: Mapping[str, Any],
    bodies: Mapping[tuple[str, str], Mapping[str, JudgedBody]] | None = None,
) -> Verdict:
    """Judge what was measured.

    Args:
        metrics: the evaluation's.
        gate: the configuration's limits of the flatness gate, which name the limit that was crossed.
        bodies: what judges said of each body of sounds; nothing where none were there, which is nothing to be missed.
    """
    judgements = (
        judge_pairs(metrics),
        judge_judges(bodies or {}),
        judge_distance(metrics),
        judge_loss(metrics),
        judge_variety(metrics),
        judge_flatness(metrics, gate),
    )
    return Verdict.of(judgement for judgement in judgements if judgement is not None)
