"""Whether the model falls into loops or silence, always says the same, or says its training set word for word."""

from pipeline.reporting.data import ReportData
from pipeline.reporting.figures.long_speech import long_speech, repetition_over_time
from pipeline.reporting.sections.section import Section, absent, render_template

TITLE = "Collapse and copying"
# Figure: what a reader sees, decimals, and what is good.
FIGURES = {
    "long/speech": ("Windows that are speech", "near real"),
    "long/repetition_at_end": ("Said again, in the last quarter", "near real"),
    "diversity/effective_share": ("Different clips, in effect, of all", "near real"),
    "diversity/distinct": ("Different runs of four codes, of all", "near real"),
    "copying/median_match": ("Longest run shared with the training set, median", "near real"),
    "copying/longest_match": ("The same, longest of all clips", "near real"),
}


def collapse(report: ReportData) -> Section:
    """Show long speech window by window, and diversity and copying beside real speech."""
    rows = [
        (label, better, report.metrics[key], report.metrics.get(f"{key}_reference"))
        for key, (label, better) in FIGURES.items()
        if key in report.metrics
    ]
    windows = report.judged.windows
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
                "caption": "Runs of six codes that the clip has said before; grey: real utterances, one after another.",
            },
        ]
    context = {"rows": rows, "figures": figures, "copied": report.metrics.get("copying/copied")}
    return Section(TITLE, render_template("collapse.html.jinja", context))
