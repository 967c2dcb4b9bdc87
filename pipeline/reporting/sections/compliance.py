"""The model beside the DeepSeek-V3 paper and the model card."""

from collections import Counter
from itertools import groupby
from typing import Any

from pipeline.reporting.data import ReportData
from pipeline.reporting.sections.section import Section, absent, render_template

# Whom a quantity agrees with: what a reader sees.
VERDICTS = {
    "paper and card": "As in paper and card",
    "paper": "As in the paper",
    "card": "As in the model card",
    "differs": "Different",
    "not built here": "Not built here",
}


def compliance(report: ReportData) -> Section:
    """Show every quantity, the components that parameters lie in, and how many tokens the model wants."""
    title = "Compliance"
    if not report.compliance:
        return absent(title, "The model was not examined.")
    rows = report.compliance["rows"]
    agreed = Counter(row["verdict"] for row in rows)
    context: dict[str, Any] = {
        "topics": [(topic, list(of_topic)) for topic, of_topic in groupby(rows, key=lambda row: row["topic"])],
        "verdicts": [(label, agreed[verdict]) for verdict, label in VERDICTS.items() if agreed[verdict]],
        "components": report.compliance["components"],
        "budgets": report.compliance["budgets"],
    }
    return Section(title, render_template("compliance.html.jinja", context))
