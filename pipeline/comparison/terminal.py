"""A comparison as text for a terminal."""

from collections.abc import Sequence
from string import ascii_uppercase

from pipeline.comparison.result import Comparison, Contest
from pipeline.comparison.wording import difference, lead, more, values


def terminal_text(comparison: Comparison) -> str:
    """A table for each model, with its verdict above; there models go by letters, for names are long."""
    names = [f"{letter}  {model.label}" for letter, model in zip(ascii_uppercase, comparison.models, strict=False)]
    contests = zip(ascii_uppercase[1:], comparison.contests, strict=False)
    tables = [_contest(letter, contest, comparison.baseline.label) for letter, contest in contests]
    return "\n\n".join(["\n".join(names), *tables])


def _contest(letter: str, contest: Contest, baseline: str) -> str:
    header = ("", "A", letter, "difference", "verdict", "to tell it takes")
    rows = [
        (
            f"{outcome.measure.title}{f', {outcome.measure.unit}' if outcome.measure.unit else ''}",
            *values(outcome),
            difference(outcome),
            outcome.verdict,
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
