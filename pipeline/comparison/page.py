"""A comparison as a page of its own: one HTML document that opens anywhere, without a network."""

from pathlib import Path

from pipeline.comparison.result import Comparison
from pipeline.plumbing.files import atomic_write
from pipeline.provenance.identity import SHORT
from pipeline.reporting.page import render_page
from pipeline.reporting.sections.comparison import comparison as comparison_section

PAGE = "index.html"


def write_page(comparison: Comparison, folder: Path, n_examples: int) -> Path:
    """Write the page into `folder`, whole or not at all, and return its path."""
    title = " and ".join(model.label for model in comparison.models)
    html = render_page(title, _facts(comparison), [comparison_section(comparison, n_examples)])
    with atomic_write(folder / PAGE) as temporary:
        temporary.write_text(html, encoding="utf-8")
    return folder / PAGE


def _facts(comparison: Comparison) -> list[tuple[str, str]]:
    """Which weights are compared, on which data."""
    facts = [
        (model.label, f"checkpoint {training.checkpoint[:SHORT]}" if training else "of an unknown training")
        for model in comparison.models
        for training in [model.identity.training]
    ]
    return [*facts, ("Data", comparison.baseline.identity.data[:SHORT])]
