"""The page: all sections in one HTML document that opens anywhere, without a network."""

from importlib.resources import files
from pathlib import Path
from typing import Any

from markupsafe import Markup

from pipeline.plumbing.files import atomic_write
from pipeline.reporting.data import ReportData
from pipeline.reporting.formatting import as_number, compact, plain
from pipeline.reporting.sections import SECTIONS
from pipeline.reporting.sections.section import render_template


def render(report: ReportData) -> str:
    """Render the report as one self-contained HTML document: style, figures and audio are inside it.

    Equal reports give equal pages.
    """
    style = files("pipeline.reporting").joinpath("templates", "page.css").read_text(encoding="utf-8")
    context = {
        "title": report.title,
        "created": report.created.strftime("%d %B %Y, %H:%M %Z").strip(),
        "facts": _facts(report),
        "style": Markup(style),
        "sections": [section(report) for section in SECTIONS],
    }
    return str(render_template("page.html.jinja", context))


def write_report(report: ReportData, path: Path | str) -> None:
    """Render the report and write it to `path`, whole or not at all."""
    html = render(report)
    with atomic_write(path) as temporary:
        temporary.write_text(html, encoding="utf-8")


def _facts(report: ReportData) -> list[tuple[str, str]]:
    """Name the experiment in a few words: data, codec, model, training."""

    def get(group: str, key: str) -> Any:
        branch = report.configuration.get(group)
        return branch.get(key) if isinstance(branch, dict) else None

    facts = []
    if get("data", "kind"):
        facts.append(("Data", plain(get("data", "kind"))))
    if get("codec", "kind"):
        size = (
            f" {get('codec', 'n_codebooks')}×{get('codec', 'codebook_size')}" if get("codec", "codebook_size") else ""
        )
        facts.append(("Codec", plain(get("codec", "kind")) + size))
    parameters = as_number(report.conversion.get("parameters"))
    if parameters > 0:
        facts.append(("Model", f"{compact(parameters)} parameters"))
    if get("trainer", "max_steps"):
        facts.append(("Training", f"{plain(get('trainer', 'max_steps'))} steps"))
    if report.configuration.get("seed") is not None:
        facts.append(("Seed", plain(report.configuration["seed"])))
    return facts
