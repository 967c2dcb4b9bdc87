"""Tables that come with audio: read as their authors quote them, and nothing in them lost without a word."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.plumbing.names import printable

_NAMED = 3


@dataclass(frozen=True)
class Row:
    """A row, and the line that it begins on."""

    line: int
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """The rows of a table that can be read.

    Attributes:
        rows: all of them, the header among them.
        broken: a clause for each line that belongs to no row, such as `line 12 is not UTF-8`.
    """

    rows: Sequence[Row]
    broken: Sequence[str]


def read_table(path: Path, delimiter: str, quoted: bool) -> Table:
    """Read a table in UTF-8, or in UTF-16 with a byte order mark.

    Args:
        path: the file.
        delimiter: what stands between cells.
        quoted: whether cells in quotes may hold delimiters and line breaks; otherwise quotes are text like any other.

    Raises:
        OSError: the file cannot be read.
    """
    lines, broken = _decode(path.read_bytes())
    rows = list(_quoted_rows(lines, delimiter, broken) if quoted else _plain_rows(lines, delimiter))
    return Table(rows, [clause for _, clause in sorted(broken.items())])


def width_checked(table: Table, width: int) -> Table:
    """The table without rows that have more or fewer cells than `width`; empty cells at the end do not count."""
    rows, broken = [], list(table.broken)
    for row in table.rows:
        if len(row.cells) >= width and not any(row.cells[width:]):
            rows.append(Row(row.line, row.cells[:width]))
        else:
            broken.append(f"line {row.line} has {len(row.cells)} cells, not {width}")
    return Table(rows, broken)


def counted(subject: str, what: str, examples: Sequence[str]) -> str:
    """A sentence on how many there are, and which: `list.csv: 5 rows name no file (line 3: a.wav; …)`."""
    named = "; ".join(printable(example) for example in examples[:_NAMED])
    more = "; …" if len(examples) > _NAMED else ""
    return f"{subject}: {len(examples)} {what} ({named}{more})."


def _decode(content: bytes) -> tuple[list[tuple[int, str]], dict[int, str]]:
    """The lines with their numbers, and what is to be said of those that are no text."""
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        text = content.decode("utf-16", errors="replace")
        content = text.encode("utf-8")
    content = content.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n")
    if b"\n" not in content:
        content = content.replace(b"\r", b"\n")
    lines, broken = [], {}
    for number, line in enumerate(content.split(b"\n"), start=1):
        try:
            lines.append((number, line.decode("utf-8")))
        except UnicodeDecodeError as error:
            broken[number] = f"line {number} is not UTF-8 (byte 0x{line[error.start]:02x})"
    return lines, broken


def _plain_rows(lines: Iterable[tuple[int, str]], delimiter: str) -> Iterator[Row]:
    for number, line in lines:
        if line.strip():
            yield Row(number, tuple(line.split(delimiter)))


def _quoted_rows(lines: Sequence[tuple[int, str]], delimiter: str, broken: dict[int, str]) -> Iterator[Row]:
    """Parse line after line; a line on which no row can begin is put into `broken`, and the next one tried."""
    position = 0
    while position < len(lines):
        reader = csv.reader((f"{line}\n" for _, line in lines[position:]), delimiter=delimiter, strict=True)
        first = position
        try:
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    yield Row(lines[first][0], tuple(cells))
                first = position + reader.line_num
            return
        except csv.Error as error:
            number = lines[first][0]
            last = position + reader.line_num
            what = "a quote is not closed" if last > first + 1 or "end of data" in str(error) else str(error)
            broken[number] = f"line {number}: {what}"
            position = first + 1
