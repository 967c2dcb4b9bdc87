"""The table of transcripts that may come with a tree of audio files."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from pipeline.audio.corpora.tables import Table, counted, read_table, width_checked

# The names of the columns: ours, Common Voice's, and those of folders of audio on model hubs.
COLUMNS = {
    "file": ("file", "path", "file_name"),
    "text": ("text", "sentence", "transcription", "transcript"),
    "speaker": ("speaker", "client_id", "speaker_id"),
}


@dataclass(frozen=True)
class Said:
    """What a table tells of one file.

    Attributes:
        text: what is said.
        speaker: who speaks; None where the table does not tell.
        defect: why the file cannot be used, since the table does not tell what it should.
        note: what else is to be said.
    """

    text: str | None = None
    speaker: str | None = None
    defect: str = ""
    note: str = ""


@dataclass(frozen=True)
class Transcripts:
    """What a table tells of all files.

    Attributes:
        files: by the file.
        other: of a file that the table does not name.
        remarks: what is wrong with the table, a sentence each.
    """

    files: Mapping[str, Said] = field(default_factory=dict)
    other: Said = Said()
    remarks: Sequence[str] = ()

    def of(self, file: str) -> Said:
        """What the table tells of a file."""
        return self.files.get(file, self.other)


NO_TRANSCRIPTS = Transcripts()


def read_transcripts(path: Path, files: Collection[str], subject: str) -> Transcripts:
    """Read a table with the columns `file` (relative to the tree), `text` and optionally `speaker`.

    Quotes are read as their authors write them: in a CSV file they enclose cells, in TSV files (Common Voice's) and
    tables with `|` (LJ Speech's) they are text.

    Args:
        path: a CSV or TSV file.
        files: the files of the tree.
        subject: what messages begin with.

    Raises:
        ValueError: the table cannot be read, lacks a column, or names none of the files.
    """
    table, columns = _read(path, subject)
    rows: dict[str, list[tuple[int, dict[str, str]]]] = {}
    for row in table.rows:
        cells = {column: row.cells[index].strip() for column, index in columns.items()}
        rows.setdefault(_relative(cells["file"], files), []).append((row.line, cells))
    if rows and not rows.keys() & set(files):
        raise ValueError(
            f"{subject}: none of its files, as {next(iter(rows))}, is in {path.parent}; "
            "give the column `file` relative to data.root."
        )
    if not rows and table.broken:
        raise ValueError(f"{subject}: {path} holds no row that can be read: {table.broken[0]}.")
    told = {file: _said(found, columns, bool(table.broken)) for file, found in rows.items() if file in files}
    other = Said()
    if "speaker" in columns:
        other = Said(defect=_BROKEN) if table.broken else Said(note="the table of transcripts does not name it")
    return Transcripts(told, other, _remarks(subject, table, rows, files))


_BROKEN = "its speaker is not known: the table of transcripts is broken"


def _read(path: Path, subject: str) -> tuple[Table, dict[str, int]]:
    """The rows below the header, and the place of each column."""
    try:
        first_line = path.open("rb").readline(1 << 16)
        delimiter = _delimiter(path, first_line)
        table = read_table(path, delimiter, quoted=delimiter == ",")
    except OSError as error:
        raise ValueError(f"{subject}: {path} cannot be read ({error.strerror}).") from None
    header = [name.strip() for name in table.rows[0].cells] if table.rows else []
    columns = {}
    for column, names in COLUMNS.items():
        places = [index for index, name in enumerate(header) if name in names]
        if len(places) > 1:
            raise ValueError(f"{subject}: {path} has two columns for the {column}: {', '.join(header)}.")
        if places:
            columns[column] = places[0]
        elif column != "speaker":
            raise ValueError(f"{subject}: {path} has no column `{column}`; it has {', '.join(header) or 'none'}.")
    return width_checked(Table(table.rows[1:], table.broken), len(header)), columns


def _delimiter(path: Path, first_line: bytes) -> str:
    if path.suffix.lower() == ".tsv":
        return "\t"
    return next((mark for mark in (",", "\t", "|") if mark.encode() in first_line.replace(b"\0", b"")), ",")


def _relative(file: str, files: Collection[str]) -> str:
    relative = str(PurePosixPath(file))
    if relative not in files and "\\" in file:
        return str(PurePosixPath(file.replace("\\", "/")))
    return relative


def _said(rows: Sequence[tuple[int, dict[str, str]]], columns: Mapping[str, int], broken: bool) -> Said:
    """What the rows of one file tell together: where they disagree, nothing."""
    lines = ", ".join(str(line) for line, _ in rows)
    texts = {cells["text"] for _, cells in rows}
    note = f"lines {lines} of the table of transcripts disagree on what is said" if len(texts) > 1 else ""
    text = None if note else texts.pop()
    if "speaker" not in columns:
        return Said(text, note=note)
    speakers = {cells["speaker"] for _, cells in rows}
    if len(speakers) > 1:
        return Said(text, defect=f"lines {lines} of the table of transcripts disagree on who speaks", note=note)
    speaker = speakers.pop()
    if not speaker and broken:
        return Said(text, defect=_BROKEN, note=note)
    return Said(text, speaker or None, note=note)


def _remarks(
    subject: str, table: Table, rows: Mapping[str, Sequence[tuple[int, dict[str, str]]]], files: Collection[str]
) -> list[str]:
    absent = [f"line {found[0][0]}: {file}" for file, found in rows.items() if file not in files]
    doubled = [f"line {line}: {file}" for file, found in rows.items() for line, _ in found[1:]]
    remarks = []
    if table.broken:
        remarks.append(counted(subject, "lines cannot be read", table.broken))
    if absent:
        remarks.append(counted(subject, "files that it names are not there", absent))
    if doubled:
        remarks.append(counted(subject, "rows name a file again", doubled))
    return remarks
