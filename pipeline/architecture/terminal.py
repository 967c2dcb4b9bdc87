"""The compliance report as text for a terminal."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from pipeline.architecture.compliance import NOT_BUILT
from pipeline.architecture.expectations import readable
from pipeline.architecture.quantities import AS_STATED

COLUMNS = ("quantity", "paper", "card", "this model", "verdict", "measured by", "section")
# Topics whose numbers follow from those of the others.
DERIVED_TOPICS = ("Parameters", "Cost")


def terminal_text(report: Mapping[str, Any]) -> str:
    """All tables of a report, one below the other."""
    parts = [
        _compliance(report["rows"]),
        _components(report["components"]),
        *_differences(report),
        _budgets(report["budgets"]),
    ]
    return "\n\n".join(part for part in parts if part)


def _compliance(rows: Sequence[Mapping[str, Any]]) -> str:
    cells = [
        (row["quantity"], row["paper_text"], row["card_text"], row["text"], row["verdict"], row["how"], row["section"])
        for row in rows
    ]
    widths = _widths([COLUMNS, *cells])
    lines = [_line(COLUMNS, widths)]
    for topic, of_topic in groupby(zip(rows, cells, strict=True), key=lambda pair: pair[0]["topic"]):
        lines += ["", topic.upper(), *(_line(cell, widths) for _, cell in of_topic)]
    return "\n".join(lines)


def _components(rows: Sequence[Mapping[str, Any]]) -> str:
    header = ("parameters by component", "paper", "card", "this model", "this − paper", "card − paper")
    keys = ("paper", "card", "model", "model_minus_paper", "card_minus_paper")
    cells = [(row["component"], *(readable(row[key]).replace("-", "−") for key in keys)) for row in rows]
    widths = _widths([header, *cells])
    return "\n".join(_line(cell, widths, right_from=1) for cell in (header, *cells))


def _differences(report: Mapping[str, Any]) -> list[str]:
    """Name what differs, without the counts that follow from it: the table of components tells those."""
    sentences = []
    for source in ("paper", "card"):
        named = [
            f"  {row['topic']}, {row['quantity']}: {row['model']}, in the {source} {row[source]}"
            for row in report["differences"][f"from_{source}"]
            if row["topic"] not in DERIVED_TOPICS or row["quantity"].endswith(AS_STATED)
        ]
        heading = (
            f"This model differs from the {source} in:" if named else f"Nothing measured differs from the {source}."
        )
        sentences.append("\n".join([heading, *named]))
    if not_built := [row["quantity"] for row in report["rows"] if row["verdict"] == NOT_BUILT]:
        sentences.append(f"Not built here: {', '.join(not_built)}.")
    return sentences


def _budgets(budgets: Mapping[str, Any]) -> str:
    header = ("tokens wanted by", "a parameter", "of", "makes tokens", "epochs")
    cells = [
        (
            row["rule"],
            readable(row["tokens_per_parameter"]),
            f"{row['denominator']} parameters",
            f"{row['tokens']:,.0f}",
            readable(row["epochs"]),
        )
        for row in budgets["rows"]
    ]
    widths = _widths([header, *cells])
    available, source = budgets["available_tokens"], budgets["source"]
    data = "unknown" if available is None else f"{available:,} tokens"
    return "\n".join([f"The data: {data} ({source}).", *(_line(cell, widths) for cell in (header, *cells))])


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]


def _line(cells: Sequence[str], widths: Sequence[int], right_from: int | None = None) -> str:
    def aligned(column: int) -> str:
        cell, width = cells[column], widths[column]
        return cell.rjust(width) if right_from is not None and column >= right_from else cell.ljust(width)

    return "  ".join(aligned(column) for column in range(len(cells))).rstrip()
