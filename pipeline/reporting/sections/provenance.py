"""What the result was made from: data, configuration, versions."""

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from pipeline.reporting.data import CURVES, DATA, ReportData
from pipeline.reporting.formatting import as_mapping, as_number, flatten
from pipeline.reporting.sections.metrics import MEASURES
from pipeline.reporting.sections.section import Section, absent, render_template

MAX_LISTED = 100
# Beside the report, which is equal wherever its inputs are: what only this rendering has.
CIRCUMSTANCES_PAGE = "circumstances.html"
# Characters of a checkpoint's digest that tell it from others.
N_SHOWN = 12
# What the reference measures of a split are taken from.
REAL_SPEECH = {"real": "as recorded", "codec": "through the codec"}
SPLIT_COLUMNS = ("utterances", "speakers", "seconds", "tokens")


def data(report: ReportData) -> Section:
    """Show the data card: splits, reference measures, what was rejected and why."""
    title = "Data"
    card = report.data_card
    if not card:
        return absent(title, "No data card was found: the prepared data lie elsewhere.")
    rejected, reference = _rejected(card), _reference(card)
    known = ("splits", "rejected", "rejected_count", "reference", "codec")
    context = {
        "shares": {} if CURVES in report.foreign else _shares(report.configuration),
        "splits": _splits(card),
        "facts": list(flatten({key: value for key, value in card.items() if key not in known and value != []})),
        "codec": list(flatten(as_mapping(card.get("codec")))),
        "measures": {key: text for key, text in MEASURES.items() if any(key in row for row in reference.values())},
        "reference": reference,
        "reasons": Counter(reason for _, reason in rejected).most_common(),
        "rejected": rejected[:MAX_LISTED],
        "rejected_count": max(len(rejected), _whole(card.get("rejected_count"))),
        "recordings": as_number(card.get("recordings")),
    }
    return Section(title, render_template("data.html.jinja", context), report.foreign.get(DATA, ""))


def _shares(configuration: Mapping[str, Any]) -> dict[str, float]:
    """What part of the tokens each folder of a mixture gives; empty where there is no mixture."""
    weights = {
        name: as_number(weight)
        for name, weight in as_mapping(as_mapping(configuration.get("feed")).get("mixture")).items()
    }
    return {str(name): weight / sum(weights.values()) for name, weight in weights.items()}


def _whole(value: Any) -> int:
    number = as_number(value)
    return 0 if math.isnan(number) else int(number)


def _splits(card: Mapping[str, Any]) -> dict[str, list[float]]:
    splits = as_mapping(card.get("splits"))
    return {
        str(name): [as_number(as_mapping(split).get(key)) for key in SPLIT_COLUMNS] for name, split in splits.items()
    }


def _reference(card: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    rows = {}
    for name, measures in as_mapping(card.get("reference")).items():
        values = {
            measure: figure
            for measure, value in as_mapping(measures).items()
            if math.isfinite(figure := as_number(value))
        }
        if values:
            split, _, source = str(name).partition("_")
            rows[f"{split}, {REAL_SPEECH[source]}" if source in REAL_SPEECH else str(name)] = values
    return rows


def _rejected(card: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (file, reason) of every rejected recording the card names."""
    entries = card.get("rejected")
    if not isinstance(entries, list):
        return []
    named = (entry if isinstance(entry, Mapping) else {"file": entry} for entry in entries)
    return [(str(entry.get("file", "?")), str(entry.get("reason", "no reason given"))) for entry in named]


def configuration(report: ReportData) -> Section:
    """Show the composed configuration, one collapsible table a group."""
    title = "Configuration"
    if not report.configuration:
        return absent(title, "The report was given no configuration.")
    groups = {str(key): list(flatten(value)) for key, value in report.configuration.items() if as_mapping(value)}
    single = {key: value for key, value in report.configuration.items() if not as_mapping(value)}
    context = {"groups": groups, "top": list(flatten(single))}
    return Section(title, render_template("configuration.html.jinja", context), report.foreign.get(CURVES, ""))


def lineage(report: ReportData) -> Section:
    """Lead to the page beside this one, which says what an equal training would not repeat."""
    context = {"circumstances": CIRCUMSTANCES_PAGE, "checkpoint": report.checkpoint[:N_SHOWN]}
    return Section("Lineage", render_template("lineage.html.jinja", context))


def circumstances(report: ReportData) -> Section:
    """Show the tracked run, what it was made from, and the versions the page was rendered with."""
    tables = {
        "Tracked run": list(flatten(report.run)),
        "Made from": list(flatten(report.lineage)),
        "Rendered with": list(flatten(report.environment)),
    }
    notes = []
    if not report.run:
        notes.append("No tracked run was found: experiment tracking was off.")
    if not report.lineage:
        notes.append("No lineage was recorded, so the page cannot say which commit it was made from.")
    context = {"tables": {name: rows for name, rows in tables.items() if rows}, "notes": notes}
    return Section("Lineage and environment", render_template("circumstances.html.jinja", context))
