"""What a manifest tells of one recording, and how its fields are read: each refused by its name, with the remedy."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.plumbing.names import is_utf8


@dataclass(frozen=True)
class Entry:
    """One recording, or a stretch of one.

    Attributes:
        audio: the path or URL of the file, as it is written.
        start: the second at which the stretch begins; None: all of the file is meant.
        seconds: the length of the stretch, or of the file, as it is told.
        text: what is said.
        speaker: who says it.
        channel: the only one that is meant, counted from 0.
        defect: why it cannot be used.
        note: what else is to be said.
    """

    audio: str
    start: float | None = None
    seconds: float | None = None
    text: str | None = None
    speaker: str | None = None
    channel: int | None = None
    defect: str = ""
    note: str = ""


def audio_field(values: Mapping[str, Any], name: str) -> str:
    """A field that names an audio file.

    Raises:
        ValueError: it is none.
    """
    value = values[name]
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"`{name}` is {value!r}, not the path of an audio file")
    return require_text(name, value)


def text_field(values: Mapping[str, Any], names: Sequence[str]) -> str | None:
    """The first of some fields that says anything; numbers stand for themselves, as readers' often do.

    Raises:
        ValueError: one is neither text nor a number.
    """
    for name in names:
        value = values.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if value is not None and not isinstance(value, str):
            raise ValueError(f"`{name}` is {value!r}, not text")
        if value and value.strip():
            return require_text(name, value.strip())
    return None


def require_text(name: str, value: str) -> str:
    """The value of a field, which JSON lets hold what no text does.

    Raises:
        ValueError: it does.
    """
    if not is_utf8(value):
        raise ValueError(f"`{name}` holds half a character ({ascii(value)}); write the file in UTF-8")
    return value


def seconds_field(values: Mapping[str, Any], name: str) -> float | None:
    """A field in seconds from 0 on; None where it is absent.

    Raises:
        ValueError: it is no such number.
    """
    value = values.get(name)
    if value is None:
        return None
    try:
        seconds = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ValueError(f"`{name}` is {value!r}, not a number of seconds")
    return seconds


def length_field(values: Mapping[str, Any], name: str) -> float | None:
    """A field in seconds above 0; None where it is absent.

    Raises:
        ValueError: it is no such number.
    """
    seconds = seconds_field(values, name)
    if seconds == 0:
        raise ValueError(f"`{name}` is 0; leave it out where it is not known")
    return seconds
