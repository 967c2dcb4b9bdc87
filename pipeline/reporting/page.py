"""The pages: all sections in one HTML document that opens anywhere, without a network, and two files beside it.

The first holds what follows from data, settings and code, and report.md its headline for a pull request;
circumstances.html holds when, where and by which run it was made.
"""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from markupsafe import Markup

from pipeline.plumbing.files import atomic_write
from pipeline.reporting.data import CURVES, ReportData
from pipeline.reporting.formatting import as_number, compact, plain, unbroken
from pipeline.reporting.markdown import MARKDOWN, render_markdown
from pipeline.reporting.sections import CIRCUMSTANCES, CIRCUMSTANCES_PAGE, SECTIONS, Section
from pipeline.reporting.sections.comparison import comparison
from pipeline.reporting.sections.provenance import N_SHOWN
from pipeline.reporting.sections.section import render_template

PAGE = "index.html"
# Rows of each kind that a report plays beside its baseline.
MOST_HEARD = 4


def render(report: ReportData) -> str:
    """Render the report as one self-contained HTML document: style, figures and audio are inside it.

    Equal results give equal pages, whenever and wherever they were reached.
    """
    verdict, *others = (section(report) for section in SECTIONS)
    against = [] if report.against is None else [comparison(report.against, MOST_HEARD)]
    return render_page(report.title, _facts(report), [verdict, *against, *others])


def render_circumstances(report: ReportData) -> str:
    """Render what two equal results differ in: time, machine, commit, tracked run and speed."""
    created = report.created.strftime("%d %B %Y, %H:%M %Z").strip()
    sections = [section(report) for section in CIRCUMSTANCES]
    facts = [("Checkpoint", report.checkpoint[:N_SHOWN])] if report.checkpoint else []
    return render_page(f"{report.title}: circumstances", [*facts, ("Rendered", created)], sections)


def write_report(report: ReportData, folder: Path | str) -> Path:
    """Write both pages and the headline into `folder`, each whole or not at all, and return the path of the first."""
    folder = Path(folder)
    rendered = {
        CIRCUMSTANCES_PAGE: render_circumstances(report),
        MARKDOWN: render_markdown(report, _facts(report)),
        PAGE: render(report),
    }
    for name, text in rendered.items():
        with atomic_write(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return folder / PAGE


def render_page(title: str, facts: Sequence[tuple[str, str]], sections: Sequence[Section]) -> str:
    """Render a document with everything inside it.

    Args:
        title: of the page.
        facts: what stands below it, name and value.
        sections: in order.
    """
    style = files("pipeline.reporting").joinpath("templates", "page.css").read_text(encoding="utf-8")
    context = {"title": title, "facts": facts, "style": Markup(style), "sections": sections}
    return unbroken(str(render_template("page.html.jinja", context)))


def _facts(report: ReportData) -> list[tuple[str, str]]:
    """Name the experiment in a few words: data, codec, model, training."""

    # A masthead that names the settings of one training over the figures of another would pair them.
    configuration = {} if CURVES in report.foreign else report.configuration

    def get(group: str, key: str) -> Any:
        branch = configuration.get(group)
        return branch.get(key) if isinstance(branch, dict) else None

    facts = []
    if mixture := get("feed", "mixture"):
        facts.append(("Data", f"mixture of {len(mixture)}"))
    elif get("data", "kind"):
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
    if configuration.get("seed") is not None:
        facts.append(("Seed", plain(configuration["seed"])))
    return facts
