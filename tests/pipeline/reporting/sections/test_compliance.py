from html import unescape

from pipeline.architecture.examination import examine
from pipeline.compose import compose
from pipeline.reporting.data import ReportData
from pipeline.reporting.sections.compliance import compliance


def test_the_section_shows_rows_components_and_budgets(tmp_path):
    report = examine(compose(), tmp_path)
    html = unescape(str(compliance(ReportData(metrics={}, compliance=report)).html))
    assert all(row["quantity"] in html for row in report["rows"])
    assert "671,026,404,352" in html
    assert "670,432,158,208" in html
    assert f"{report['parameters']['total']:,}" in html
    assert "648,000 tokens" in html
    assert "active parameters" in html


def test_text_is_escaped():
    row = dict.fromkeys(("topic", "quantity", "text", "paper_text", "card_text", "verdict", "how", "section"), "<b>")
    html = str(compliance(ReportData(metrics={}, compliance={"rows": [row], "components": [], "budgets": {}})).html)
    assert "<b>" not in html
    assert "&lt;b&gt;" in html


def test_without_an_examination_the_section_says_so():
    assert "not examined" in compliance(ReportData(metrics={})).html
