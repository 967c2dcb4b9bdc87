"""What corpora that are lists of recordings have in common: names, speakers, and lines that say nothing."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from pipeline.audio.corpora.configuration import ListedConfig
from pipeline.audio.corpora.entry import Entry
from pipeline.audio.corpora.manifest_lines import read_lines
from pipeline.audio.source import Source
from pipeline.plumbing.locations import expanded, folder_of, scheme_of
from pipeline.plumbing.redaction import redacted

_NAMED = 3


@dataclass(frozen=True)
class Located:
    """Something that lists recordings.

    Attributes:
        key: the option that leads to it.
        split: that its recordings belong to; None: none in particular.
        location: where it lies.
    """

    key: str
    split: str | None
    location: str


def located(config: ListedConfig, spell_out: Callable[[str | Sequence[str]], list[str]] = expanded) -> list[Located]:
    """All that the options lead to.

    Where a held-out split has nothing of its own, it is drawn from what `data.path` leads to.

    Raises:
        ValueError: naming the option that leads to nothing.
    """
    published = {"validation_path": "validation", "test_path": "test"}
    complete = all(getattr(config, key) for key in published)
    found = []
    for key, split in {"path": "train" if complete else None, **published}.items():
        with named(key):
            found += [Located(key, split, location) for location in spell_out(getattr(config, key) or ())]
    return found


class Names:
    """Hands out ids, each once.

    Of those that were given it keeps digests: 100 bytes a recording. Two different ids share one by chance once in
    some hundred million lists of a million.
    """

    def __init__(self) -> None:
        self._given: set[int] = set()

    def of(self, name: str, where: str) -> tuple[str, str]:
        """The id of what is called so and stands there; and what is wrong with it, if it was named before."""
        digest = hash(name)
        if digest in self._given:
            return f"{name} (again, {where})", "named before, and the first time counts"
        self._given.add(digest)
        return name, ""


def common_folder(locations: Sequence[str]) -> str:
    """The deepest folder that all of the normalised locations lie in; empty where there is none."""
    folders = sorted({folder_of(location) for location in locations})
    if len({scheme_of(folder) for folder in folders}) > 1:
        return ""
    parts = [folder.split("/") for folder in folders]
    return "/".join(part for part, *_ in _while_equal(parts))


def _while_equal(parts: Sequence[Sequence[str]]) -> Iterator[tuple[str, ...]]:
    for together in zip(*parts, strict=False):
        if len(set(together)) > 1:
            return
        yield together


def name_of(location: str, home: str) -> str:
    """A location relative to a folder that it lies in; otherwise as it is, without secrets."""
    name = location[len(home) + 1 :] if home and location.startswith(home + "/") else location
    # A URL carries credentials before an @ or behind a ?; looking for them is slow.
    return redacted(name) if "@" in name or "?" in name else name


def written_name(written: str, location: str, home: str) -> str:
    """The name of a location: what is written relative stays so, and thereby the same on another machine."""
    name = name_of(location, home)
    if name is location and not scheme_of(location) and not os.path.isabs(written) and not scheme_of(written):
        return os.path.relpath(location, home)
    return name


def stretch_name(name: str, source: Source) -> str:
    """The name of a stretch or channel of a file, in the manner of media fragments (W3C): `a.wav#t=1.5,3`."""
    told = []
    if source.start is not None:
        stop = "" if source.seconds is None else f",{_brief(source.start + source.seconds)}"
        told.append(f"t={_brief(source.start)}{stop}")
    if source.channel is not None:
        told.append(f"channel={source.channel}")
    return f"{name}#{'&'.join(told)}" if told else name


def _brief(seconds: float) -> str:
    return f"{seconds:.6f}".rstrip("0").rstrip(".")


def speaker_of(file: str, speaker_from: str, home: str) -> str:
    """Who speaks in a file, as its name tells: its folder, itself, or always the same."""
    path = PurePosixPath(file)
    if speaker_from == "file":
        return file
    if speaker_from == "folder" and len(path.parts) > 1:
        return str(path.parent)
    return os.path.basename(home) or "unknown"


def read_entries(key: str, location: str, read: Callable[[Mapping[str, Any]], Entry]) -> Iterator[tuple[int, Entry]]:
    """Yield the entries of a manifest, each with its line.

    Raises:
        ValueError: naming the option, the file, the first lines that say nothing, and what is wrong with them.
    """
    problems: dict[str, list[int]] = {}
    number = 0
    with named(key):
        for number, values in read_lines(location):
            try:
                if isinstance(values, str):
                    raise ValueError(values)
                entry = read(values)
            except ValueError as error:
                problems.setdefault(str(error), []).append(number)
                continue
            if not problems:
                yield number, entry
        if problems:
            raise ValueError(f"{redacted(location)}, {_described(problems)}. Correct or remove them.")
        if not number:
            raise ValueError(f"{redacted(location)} is empty.")


def _described(problems: Mapping[str, Sequence[int]]) -> str:
    """The first problems, each with its first line and how many lines share it."""
    clauses = []
    for problem, (first, *others) in list(problems.items())[:_NAMED]:
        clauses.append(f"line {first}: {problem}" + (f" (and {len(others)} more)" if others else ""))
    more = sum(len(numbers) for numbers in list(problems.values())[_NAMED:])
    return "; ".join(clauses) + (f"; and {more} more lines" if more else "")


def files_of(patterns: str | Sequence[str], names: str) -> list[str]:
    """The normalised locations of patterns; a folder stands for its files of some names.

    Raises:
        OSError: there are none.
    """
    return [file for location in expanded(patterns) for file in _within(location, names)]


def _within(location: str, names: str) -> list[str]:
    if scheme_of(location):
        is_folder = location.endswith("/") or "." not in location.rpartition("/")[2]
    else:
        is_folder = os.path.isdir(location)
    return expanded(f"{location.rstrip('/')}/{names}") if is_folder else [location]


@contextmanager
def named(key: str) -> Iterator[None]:
    """Name the option that leads to a file which cannot be read.

    Raises:
        ValueError: what was raised, with the option before it.
    """
    try:
        yield
    except OSError as error:
        said = f"{redacted(str(error.filename))}: {error.strerror}." if error.filename else str(error)
        raise ValueError(f"data.{key}: {said}") from None
    except ValueError as error:
        # An option within another one's files is the nearer one.
        raise ValueError(str(error) if str(error).startswith("data.") else f"data.{key}: {error}") from None
