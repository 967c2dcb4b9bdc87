"""The headline as Markdown, for a pull request: `gh pr comment --body-file outputs/report/report.md`."""

from collections.abc import Sequence

from pipeline.comparison.result import Comparison
from pipeline.comparison.wording import lead, reasons
from pipeline.reporting.data import ReportData
from pipeline.reporting.sections.headline import report_verdict, tiles
from pipeline.reporting.sections.section import render_template

MARKDOWN = "report.md"


def render_markdown(report: ReportData, facts: Sequence[tuple[str, str]]) -> str:
    """The verdict, what every piece of evidence says, and the headline numbers with their intervals and references."""
    context = {
        "title": report.title,
        "facts": facts,
        "foreign": list(report.foreign.values()),
        "compared": [] if report.against is None else _compared(report.against),
        "verdict": report_verdict(report),
        "tiles": tiles(report),
    }
    return str(render_template("headline.md.jinja", context))


def _compared(against: Comparison) -> list[str]:
    """The verdict of the paired test on the model and its baseline, and what it rests on."""
    return [" ".join((lead(contest, against.baseline.label), *reasons(contest))) for contest in against.contests]
