"""A comparison as text for a terminal."""

from collections.abc import Sequence

from pipeline.comparison.result import Comparison, Contest
from pipeline.comparison.wording import difference, lead, more, values


def terminal_text(comparison: Comparison) -> str:
    """A table for each model, with its verdict above."""
    return "\n\n".join(_contest(contest, comparison.baseline.label) for contest in comparison.contests)


def _contest(contest: Contest, baseline: str) -> str:
    header = ("", baseline, contest.model.label, "difference", "verdict", "to tell it takes")
    rows = [
        (
            f"{outcome.measure.title}{f', {outcome.measure.unit}' if outcome.measure.unit else ''}",
            *values(outcome),
            difference(outcome),
            outcome.difference.verdict,
            more(outcome),
        )
        for outcome in contest.outcomes
    ]
    return "\n".join([lead(contest, baseline), *contest.notes, "", *_aligned([header, *rows])])


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows in columns: figures to the right, words to the left."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.rjust(width) if column in (1, 2, 3) else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
