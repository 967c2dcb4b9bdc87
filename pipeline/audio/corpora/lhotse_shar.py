"""Lhotse Shar: `cuts.000000.jsonl.gz` beside `recording.000000.tar`, cut for cut. Source: lhotse 1.33, `shar`."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from pipeline.audio.corpora.corpus import Recording
from pipeline.audio.corpora.entry import Entry
from pipeline.audio.corpora.listed_archives import ListedArchives
from pipeline.audio.corpora.listing import (
    Located,
    Names,
    name_of,
    named,
    read_entries,
    speaker_of,
    stretch_name,
)
from pipeline.audio.corpora.manifest_entry import read_entry
from pipeline.audio.corpora.tar_members import Archive, Member, read_archives
from pipeline.audio.source import Source
from pipeline.plumbing.locations import beside, folder_of
from pipeline.plumbing.redaction import redacted

_CUTS = re.compile(r"cuts(\.[^/]*)\.jsonl(\.\w+)?$")
# What describes the audio before it, and what stands for audio that a cut does not have.
_DESCRIPTIONS = (".json", ".nometa")
_PLACEHOLDER = ".nodata"


@dataclass(frozen=True)
class SharCorpus(ListedArchives):
    """Cuts, and archives with the sound of each."""

    name = "lhotse_shar"
    pattern = "cuts.*.jsonl*"

    def recordings(self) -> Iterator[Recording]:
        """Yield the recordings in the order of the cuts."""
        names = Names()
        with named("path"):
            archives = read_archives([_archive_of(place.location) for place in self._located])
            for place, archive in zip(self._located, archives, strict=True):
                yield from self._recordings(place, archive, names)

    def _recordings(self, place: Located, archive: Archive, names: Names) -> Iterator[Recording]:
        members = (member for member in archive.members if not member.name.endswith(_DESCRIPTIONS))
        shown = name_of(archive.location, self._home)
        for number, cut in read_entries(place.key, place.location, _read_cut):
            member = next(members, None)
            if member is not None and str(PurePosixPath(member.name).with_suffix("")) != cut.audio:
                raise ValueError(
                    f"{redacted(place.location)}, line {number} is the cut {cut.audio}, where {shown} has "
                    f"{member.name}; the two are not of one export."
                )
            yield self._recording(cut, archive, member, place.split, names, number)

    def _recording(
        self, cut: Entry, archive: Archive, member: Member | None, split: str | None, names: Names, number: int
    ) -> Recording:
        home = name_of(archive.location, self._home)
        speaker = cut.speaker or speaker_of(cut.audio, "none", self._home)
        if member is None:
            name, _ = names.of(f"{home}/{cut.audio}", f"line {number} of its cuts")
            absent = f"its archive {archive.fault or 'ends before it'}"
            return Recording(name, speaker, cut.text, split, cut.defect or absent, cut.note)
        source = Source(archive.location, member.first_byte, member.n_bytes, cut.start, cut.seconds, cut.channel)
        name, defect = names.of(stretch_name(f"{home}/{member.name}", source), f"line {number} of its cuts")
        if member.name.endswith(_PLACEHOLDER):
            defect = "the cut has no recording"
        elif not member.whole:
            defect = "cut off with its archive"
        return Recording(name, speaker, cut.text, split, cut.defect or defect, cut.note, source)


def _read_cut(values: Mapping[str, Any]) -> Entry:
    """A cut, called by its id: its sound has no path."""
    if not isinstance(values.get("id"), str) or "recording" not in values and "tracks" not in values:
        raise ValueError("is no cut of lhotse's, which has an `id` and a `recording`")
    return replace(read_entry(values), audio=values["id"])


def _archive_of(cuts: str) -> str:
    """Where the sound of a file of cuts lies."""
    match = _CUTS.search(cuts)
    if match is None:
        raise ValueError(f"{redacted(cuts)} is not called as cuts of Shar are: cuts.000000.jsonl.gz.")
    return beside(folder_of(cuts), f"recording{match[1]}.tar")
