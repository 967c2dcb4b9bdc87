"""Real speech beside generated speech, to hear and to see."""

from markupsafe import Markup

from pipeline.reporting.clips import KINDS, Clip, wav_data_uri
from pipeline.reporting.data import ReportData
from pipeline.reporting.figures.spectrogram import spectrogram
from pipeline.reporting.sections.section import Section, absent, render_template

COLUMNS = {
    "real": ("Real", "A held-out recording, untouched."),
    "codec": ("Codec ceiling", "The same, through the codec and back: the best the model could sound."),
    "continuation": ("Continuation", "The model goes on from the first moments of the same recording."),
    "unprompted": ("Unprompted", "The model speaks from nothing; unrelated to the rest of the row."),
}


def listen(report: ReportData) -> Section:
    """Lay clips out in rows: a real utterance, its codec ceiling, its continuation, and one unprompted."""
    title = "Listen"
    if not report.clips:
        return absent(title, "No audio was found: the evaluation wrote no audio.json.")
    seconds = max(clip.seconds for clip in report.clips)
    f_max = min(clip.sample_rate for clip in report.clips) / 2
    rows = [
        [_cell(clip, f"clip-{i}-{clip.kind}", seconds, f_max) for clip in row]
        for i, row in enumerate(pair_rows(report.clips))
    ]
    return Section(title, render_template("listen.html.jinja", {"rows": rows, "columns": COLUMNS}))


def pair_rows(clips: tuple[Clip, ...]) -> list[list[Clip]]:
    """Arrange clips in rows of at most one clip a kind, those of one pair in the same row."""
    by_kind = {kind: [clip for clip in clips if clip.kind == kind] for kind in KINDS}
    rows = []
    while any(by_kind.values()):
        leader = next((by_kind[kind][0] for kind in ("continuation", "codec", "real") if by_kind[kind]), None)
        pairs = {kind: None if kind == "unprompted" or leader is None else leader.pair for kind in KINDS}
        taken = (_take(by_kind[kind], pairs[kind]) for kind in KINDS)
        rows.append([clip for clip in taken if clip is not None])
    return rows


def _take(clips: list[Clip], pair: str | None) -> Clip | None:
    """Remove and return the clip of this pair, or the first one when no pair is asked for or clips have none."""
    for i, clip in enumerate(clips):
        if pair is None or clip.pair is None or clip.pair == pair:
            return clips.pop(i)
    return None


def _cell(clip: Clip, name: str, seconds: float, f_max: float) -> dict[str, str | Markup | Clip]:
    return {
        "clip": clip,
        "title": COLUMNS[clip.kind][0],
        "figure": spectrogram(clip, name, seconds, f_max),
        "player": wav_data_uri(clip),
    }
