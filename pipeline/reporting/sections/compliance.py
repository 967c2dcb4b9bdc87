"""The model beside the DeepSeek-V3 paper and the model card."""

from collections import Counter
from itertools import groupby
from typing import Any

from pipeline.reporting.data import ReportData
from pipeline.reporting.sections.section import Section, absent, render_template


def compliance(report: ReportData) -> Section:
    """Show every quantity, the components that parameters lie in, and how many tokens the model wants."""
    title = "Compliance"
    if not report.compliance:
        return absent(title, "The model was not examined.")
    rows = report.compliance["rows"]
    context: dict[str, Any] = {
        "topics": [(topic, list(of_topic)) for topic, of_topic in groupby(rows, key=lambda row: row["topic"])],
        "verdicts": Counter(row["verdict"] for row in rows).most_common(),
        "components": report.compliance["components"],
        "budgets": report.compliance["budgets"],
    }
    return Section(title, render_template("compliance.html.jinja", context))
