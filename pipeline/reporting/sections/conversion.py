"""What became of a checkpoint on its way to the export, and whether that is to be believed."""

from collections.abc import Mapping
from typing import Any

from pipeline.reporting.data import CONVERSION, ReportData
from pipeline.reporting.formatting import as_mapping, as_number, plain
from pipeline.reporting.sections.section import Section, absent, render_template

MAX_LISTED = 100
FACTS = ("source", "source_layout", "layout", "dtype", "step", "tensors", "bytes")
# Of each verdict, how it is coloured and what the page calls it.
STAMPS = {"pass": ("passed", "Sound"), "warn": ("weak", "To be looked at"), "fail": ("failed", "Not sound")}
# What a list of tensors means, for people who wonder whether it should be empty.
LISTS = {
    "repaired": "names of the past that got their names of today",
    "renamed": "only their names changed",
    "missing": "not in the source, allowed by name, random now",
    "unexpected": "in the source, without a place in the model",
    "initialised": "not in the source, begun as training begins them",
    "dropped": "left out as asked",
    "left_behind": "of the training, not of the model",
}


def conversion(report: ReportData) -> Section:
    """Show the conversion's verdict, every check behind it, and what became of the tensors."""
    title = "Checkpoint conversion"
    found = report.conversion
    if not found:
        return absent(title, "No conversion report was found: the checkpoint was not converted.")
    lists = {name: _entries(found.get(name)) for name in LISTS}
    context = {
        "verdict": _verdict(as_mapping(found.get("verdict"))),
        "checks": [_texts(as_mapping(check), "name", "status", "sentence") for check in _values(found.get("checks"))],
        "facts": [(name.replace("_", " "), plain(found[name])) for name in FACTS if name in found],
        "notes": [str(note) for note in _values(found.get("notes"))],
        "parameters": as_number(found.get("parameters")),
        "lists": [
            (name.replace("_", " "), LISTS[name], len(entries), entries[:MAX_LISTED]) for name, entries in lists.items()
        ],
        "rounded": _most_rounded(as_mapping(found.get("quantisation"))),
    }
    return Section(title, render_template("conversion.html.jinja", context), report.foreign.get(CONVERSION, ""))


def _verdict(verdict: Mapping[str, Any]) -> dict[str, str]:
    """Return the verdict's colour, stamp and sentence; nothing where there is none."""
    if not verdict:
        return {}
    texts = _texts(verdict, "status", "sentence")
    colour, stamp = STAMPS.get(texts["status"], ("unmeasured", texts["status"]))
    return {"colour": colour, "stamp": stamp, "sentence": texts["sentence"]}


def _texts(found: Mapping[str, Any], *names: str) -> dict[str, str]:
    return {name: str(found.get(name, "")) for name in names}


def _values(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _entries(value: Any) -> list[str]:
    """Return names as text; a pair [old, new] reads old → new."""
    pairs = list(value.items()) if isinstance(value, Mapping) else _values(value)
    return [" → ".join(map(str, entry)) if isinstance(entry, list | tuple) else str(entry) for entry in pairs]


def _most_rounded(errors: Mapping[str, Any]) -> list[tuple[str, float, float]]:
    """Return (tensor, relative error, greatest difference) of the tensors that changed most when they were rounded."""
    rows = [
        (name, as_number(as_mapping(error).get("relative_l2")), as_number(as_mapping(error).get("max_abs")))
        for name, error in errors.items()
    ]
    return sorted(rows, key=lambda row: -row[1])[:MAX_LISTED]
