"""The lines of a manifest: JSON lines, or a table with a header; compressed or not, on a disk or elsewhere."""

import csv
import io
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pipeline.plumbing.locations import decompressed
from pipeline.plumbing.redaction import redacted

TABLE = re.compile(r"\.(tsv|csv)(\.\w+)?$", re.IGNORECASE)
_UTF8_MARK = b"\xef\xbb\xbf"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")

# What a line says by its fields, or why it says nothing.
Line = tuple[int, Mapping[str, Any] | str]


def is_table(location: str) -> bool:
    """Whether the name is that of a table: Common Voice's are TSV."""
    return TABLE.search(location) is not None


def read_lines(location: str) -> Iterator[Line]:
    """Yield the lines of a manifest that are not empty, each with its number, in bounded memory.

    Raises:
        OSError: the file cannot be reached; in one sentence where it lies elsewhere.
        ValueError: it is no manifest at all, or is cut off.
    """
    lines = _decoded(_raw_lines(location), redacted(location))
    if not is_table(location):
        yield from _json_lines(lines, redacted(location))
    elif ".tsv" in location.lower():
        yield from _rows(((number, line.split("\t")) for number, line in lines), redacted(location))
    else:
        yield from _rows(_quoted(lines), redacted(location))


def _raw_lines(location: str) -> Iterator[bytes]:
    try:
        with io.BufferedReader(decompressed(location), 1 << 20) as file:  # type: ignore[type-var]
            yield from file
    except (EOFError, zlib.error) as error:
        raise ValueError(f"{redacted(location)} is cut off or damaged ({error}); fetch it again.") from None
    except OSError as error:
        if "gzip" in str(error).lower() or "invalid data" in str(error).lower():
            raise ValueError(f"{redacted(location)} is not compressed as its name tells ({error}).") from None
        raise


def _decoded(raw: Iterable[bytes], shown: str) -> Iterator[tuple[int, str]]:
    """Yield lines without their ends. What is not UTF-8 is not read: half a name would be another name."""
    for number, line in enumerate(raw, start=1):
        if number == 1:
            if line.startswith(_UTF16_MARKS):
                raise ValueError(f"{shown} is UTF-16; write it in UTF-8, with `iconv -f UTF-16 -t UTF-8`.")
            line = line.removeprefix(_UTF8_MARK)
        try:
            text = line.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{shown}, line {number}: byte 0x{line[error.start]:02x} is not UTF-8; write the file in UTF-8."
            ) from None
        if text.strip():
            yield number, text


def _json_lines(lines: Iterable[tuple[int, str]], shown: str) -> Iterator[Line]:
    first = True
    for number, line in lines:
        try:
            values = json.loads(line)
        except json.JSONDecodeError as error:
            if first:
                _refuse_other_json(line, shown)
            yield number, f"is no JSON ({error.msg}, column {error.colno})"
            continue
        if isinstance(values, list) and first:
            _refuse_other_json("[", shown)
        first = False
        yield number, values if isinstance(values, dict) else f"is {line[:20]}, not a JSON object of named fields"


def _refuse_other_json(line: str, shown: str) -> None:
    """Say so where a file is one JSON document over many lines."""
    if line.lstrip().startswith("[") or line.strip() == "{":
        raise ValueError(
            f"{shown} is one JSON document; a manifest has one object a line: write it with `jq -c '.[]'`."
        )


def _quoted(lines: Iterable[tuple[int, str]]) -> Iterator[tuple[int, list[str]]]:
    numbers: list[int] = []

    def texts() -> Iterator[str]:
        for number, line in lines:
            numbers.append(number)
            yield line + "\n"

    for cells in csv.reader(texts()):
        yield numbers[0], cells
        numbers.clear()


def _rows(rows: Iterable[tuple[int, list[str]]], shown: str) -> Iterator[Line]:
    header: list[str] = []
    for number, cells in rows:
        if not header:
            header = [cell.strip() for cell in cells]
            if twice := [name for name in header if name and header.count(name) > 1]:
                raise ValueError(f"{shown} has two columns {twice[0]}.")
        elif len(cells) < len(header) or any(cells[len(header) :]):
            yield number, f"has {len(cells)} cells, and the header {len(header)}"
        else:
            yield number, {name: cell for name, cell in zip(header, cells, strict=False) if cell != ""}
