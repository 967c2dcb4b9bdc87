"""Whether the model falls into loops or silence, always says the same, or says its training set word for word."""

import math
from collections.abc import Callable, Sequence

from pipeline.reporting.data import ReportData
from pipeline.reporting.figures.long_speech import HELD_OUT, long_speech, repetition_over_time
from pipeline.reporting.formatting import percent, short
from pipeline.reporting.judged import LongWindow
from pipeline.reporting.sections.section import Section, absent, render_template

TITLE = "Collapse and copying"
# Figure: what a reader sees, and how it is written.
FIGURES: dict[str, tuple[str, Callable[[float], str]]] = {
    "long/speech": ("Windows that are speech", percent),
    "long/repetition_at_end": ("Said again, in the last quarter", percent),
    "diversity/effective_share": ("Different clips, in effect, of all", percent),
    "diversity/distinct": ("Different runs of four codes, of all", percent),
    "copying/median_match": (
        "Longest run shared with the training set, median of the clips",
        lambda n: f"{short(n)} codes",
    ),
    "copying/longest_match": ("Longest run shared with the training set, of all clips", lambda n: f"{short(n)} codes"),
}


def collapse(report: ReportData) -> Section:
    """Show long speech window by window, and diversity and copying beside real speech."""
    rows = [
        (label, *(written(report.metrics.get(name, math.nan)) for name in (key, f"{key}_reference")))
        for key, (label, written) in FIGURES.items()
        if key in report.metrics
    ]
    windows = _beside(report.judged.windows)
    if not rows and not windows:
        return absent(TITLE, "The evaluation looked for neither.")
    figures = []
    if windows:
        seconds = sorted({window.second for window in windows})
        width = seconds[1] - seconds[0] if len(seconds) > 1 else 1.0
        figures = [
            {
                "title": "Speech that may not end",
                "figure": long_speech(windows, width),
                "caption": "What each stretch is: speech, or silence, one held sound, a loop, a tone, noise.",
            },
            {
                "title": "Said before",
                "figure": repetition_over_time(windows),
                "caption": "Runs of six codes that the clip has said before. Grey: real utterances, one after another.",
            },
        ]
    context = {"rows": rows, "figures": figures, "copied": report.metrics.get("copying/copied")}
    return Section(TITLE, render_template("collapse.html.jinja", context))


def _beside(windows: Sequence[LongWindow]) -> list[LongWindow]:
    """The model's windows, and as many of the real speech, which is longer, as last as long."""
    last = max((window.second for window in windows if window.signal != HELD_OUT), default=math.inf)
    return [window for window in windows if window.second <= last]
