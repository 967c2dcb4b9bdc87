from dataclasses import replace

from pipeline.reporting.data import ReportData
from pipeline.reporting.judged import Heard, Judged, JudgedBody, LongWindow
from pipeline.reporting.sections.collapse import collapse
from pipeline.reporting.sections.judges import judges

MEASURE = {"heading": "Words", "better": "higher", "meaning": "m"}
DOCUMENT = {
    "sample_rate": 8000,
    "expected_sample_rate": 16000,
    "judges": {"ear": {"origin": "An ear", "measures": {"words": MEASURE}}},
    "skipped": {"nose": "smell is not installed; make judges installs it."},
}
JUDGED = Judged(
    DOCUMENT,
    {
        ("ear", "words"): {
            "codec": JudgedBody(2.0, 1.5, 2.5, 0.5),
            "continuation": JudgedBody(1.0, 0.5, 1.5, 0.8),
            "tone": JudgedBody(0.25, 0.125, 0.375, 1.0),
            "silence": JudgedBody(1.75, float("nan"), float("nan"), 0.6),
        }
    },
    (Heard("codec", 0, "one <two>", "one to"), Heard("unprompted", 0, "", "")),
)


def test_controls_that_a_measure_cannot_tell_are_marked_and_no_others() -> None:
    html = judges(ReportData({}, judged=JUDGED)).html
    assert "1.75*" in html
    assert "0.25*" not in html
    assert "1.00*" not in html
    assert html.count("nan") == 0


def test_the_rate_and_who_is_absent_are_told() -> None:
    html = judges(ReportData({}, judged=JUDGED)).html
    assert "Judges expect sound of 16 kHz; this codec has 8." in html
    assert "nose was left out: smell is not installed" in html
    wide = replace(JUDGED, document=DOCUMENT | {"sample_rate": 16000})
    assert "Judges expect" not in judges(ReportData({}, judged=wide)).html


def test_what_was_heard_is_text_and_not_markup() -> None:
    html = judges(ReportData({}, judged=JUDGED)).html
    assert "said: one &lt;two&gt;" in html
    assert "(nothing)" in html


def test_without_judges_the_reasons_stand_there() -> None:
    html = judges(ReportData({}, judged=Judged(DOCUMENT))).html
    assert "<li>nose: smell is not installed; make judges installs it.</li>" in html


def test_collapse_is_shown_window_by_window_beside_real_speech() -> None:
    windows = tuple(
        LongWindow(signal, 0, 2.5 * i, 0.2, -23, 0.0, state)
        for signal, states in (("generated", ("speech", "loop")), ("held_out", ("speech", "speech")))
        for i, state in enumerate(states)
    )
    metrics = {"long/speech": 0.5, "long/speech_reference": 1.0, "copying/copied": 0.25}
    html = collapse(ReportData(metrics, judged=Judged(windows=windows))).html
    assert "3 of 4 windows are speech" in html
    assert "loop" in html
    assert "25 % of the clips" in html
    assert "looked for neither" in collapse(ReportData({})).html
