"""What judges that were trained elsewhere say of the model's speech, beside real speech and controls."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.reporting.data import ReportData
from pipeline.reporting.formatting import as_mapping, as_number
from pipeline.reporting.judged import Heard, JudgedBody
from pipeline.reporting.sections.section import Section, render_template

TITLE = "Judges"
# The groups of the table's rows: signal, what a reader sees, and what it is.
GROUPS = {
    "Real speech": {
        "real": ("Real", "held-out recordings, untouched"),
        "codec": ("Codec ceiling", "through the codec and back"),
    },
    "The model": {
        "continuation": ("Continuation", "after a real prompt"),
        "unprompted": ("Unprompted", "from the first token alone"),
    },
    "Controls": {
        "other_speaker": ("Another voice", "real, but not the prompt's"),
        "unigram_random": ("Unigram tokens", "drawn by frequency, decoded"),
        "shuffled": ("Shuffled", "real, its 20 ms in random order"),
        "tone": ("Tone", "a steady sine"),
        "noise": ("White noise", "every frequency alike"),
        "silence": ("Silence", "nothing"),
    },
}
# As the evaluation has it: what is separated less often is not told apart.
TELLS = 0.9
N_HEARD = 6
LISTENED_TO = {"codec": "real, through the codec", "continuation": "continuation", "unprompted": "unprompted"}


def judges(report: ReportData) -> Section:
    """Show every measure of every judge for each body of sounds, which junk it cannot tell, and what was heard."""
    judged = report.judged
    skipped = as_mapping(judged.document.get("skipped"))
    if not judged.bodies:
        return Section(TITLE, render_template("no_judges.html.jinja", {"skipped": sorted(skipped.items())}))
    context = {
        "measures": [_described(judged.document, judge, measure) for judge, measure in judged.bodies],
        "groups": _groups(list(judged.bodies.values())),
        "origins": [as_mapping(judge).get("origin", name) for name, judge in _present(judged.document).items()],
        "skipped": sorted(skipped.items()),
        "heard": heard_by_signal(judged.heard),
        "rates": _rates(judged.document),
    }
    return Section(TITLE, render_template("judges.html.jinja", context))


def _present(document: Mapping[str, Any]) -> Mapping[str, Any]:
    return as_mapping(document.get("judges"))


def _described(document: Mapping[str, Any], judge: str, measure: str) -> dict[str, str]:
    """What a reader sees of a measure."""
    known = as_mapping(as_mapping(as_mapping(_present(document).get(judge)).get("measures")).get(measure))
    return {"heading": f"{judge} {measure}", "better": "", "meaning": ""} | {k: str(v) for k, v in known.items()}


def _groups(measures: Sequence[Mapping[str, JudgedBody]]) -> list[tuple[str, list[dict[str, Any]]]]:
    """The rows of the table, each with a cell a measure; signals that nobody judged are left out."""
    groups = []
    for group, signals in GROUPS.items():
        rows = [
            {"label": label, "meaning": meaning, "cells": [_cell(signal, bodies) for bodies in measures]}
            for signal, (label, meaning) in signals.items()
            if any(signal in bodies for bodies in measures)
        ]
        if rows:
            groups.append((group, rows))
    return groups


def _cell(signal: str, bodies: Mapping[str, JudgedBody]) -> dict[str, Any]:
    """A figure, and whether it is that of a control which the measure takes for real speech."""
    body = bodies.get(signal)
    is_control = signal in GROUPS["Controls"]
    return {"body": body, "is_blind": is_control and body is not None and body.separation < TELLS}


def heard_by_signal(heard: Sequence[Heard]) -> list[tuple[str, list[Heard]]]:
    """The first sounds of each kind in which there can be words."""
    kinds = {label: [row for row in heard if row.signal == kind][:N_HEARD] for kind, label in LISTENED_TO.items()}
    return [(label, rows) for label, rows in kinds.items() if rows]


def _rates(document: Mapping[str, Any]) -> tuple[float, float] | None:
    """The sample rates of the sounds and of what judges expect, in kHz, where the former is lower."""
    rate, expected = (as_number(document.get(key)) / 1000 for key in ("sample_rate", "expected_sample_rate"))
    return (rate, expected) if rate < expected else None
