"""WebDataset: tar archives in which `a/b.flac`, `a/b.json` and `a/b.txt` are one sample. Source: webdataset 1.0.

NeMo's archives hold audio alone, and a manifest beside them names their members.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import PurePosixPath

from pipeline.audio.corpora.configuration import WebDatasetConfig
from pipeline.audio.corpora.corpus import Recording
from pipeline.audio.corpora.entry import Entry
from pipeline.audio.corpora.folder import EXTENSIONS, UNREAD_EXTENSIONS
from pipeline.audio.corpora.listed_archives import ListedArchives
from pipeline.audio.corpora.listing import (
    Located,
    Names,
    name_of,
    named,
    read_entries,
    speaker_of,
)
from pipeline.audio.corpora.manifest_entry import read_description, read_entry
from pipeline.audio.corpora.tar_members import Archive, Member, read_archives
from pipeline.audio.source import Source
from pipeline.plumbing.locations import expanded


@dataclass(frozen=True)
class WebDatasetCorpus(ListedArchives):
    """The audio in archives, with what samples or a manifest tell of it."""

    config: WebDatasetConfig
    name = "webdataset"
    pattern = "*.tar"

    def recordings(self) -> Iterator[Recording]:
        """Yield the recordings in the order of the archives and their members; an archive's fault like one of them."""
        entries, names, n_recordings = self._entries(), Names(), 0
        with named("path"):
            for place, archive in zip(self._located, self._archives(), strict=True):
                for recording in self._recordings(archive, place, entries, names):
                    n_recordings += 1
                    yield recording
            if not n_recordings:
                raise ValueError(f"no archive holds {', '.join(EXTENSIONS)} files.")

    def _archives(self) -> Iterator[Archive]:
        return read_archives([place.location for place in self._located])

    def _recordings(
        self, archive: Archive, place: Located, entries: Mapping[str, Entry] | None, names: Names
    ) -> Iterator[Recording]:
        shown = name_of(archive.location, self._home)
        for member, described in samples(archive.members):
            entry = described if entries is None else entries.get(member.name)
            # NeMo's manifests leave out what is not wanted.
            if entry is not None:
                yield self._recording(archive, member, entry, place.split, names)
        if archive.fault:
            yield Recording(shown, shown, split=place.split, defect=f"the archive {archive.fault}")

    def _recording(self, archive: Archive, member: Member, entry: Entry, split: str | None, names: Names) -> Recording:
        name, again = names.of(f"{name_of(archive.location, self._home)}/{member.name}", f"at byte {member.first_byte}")
        speaker = entry.speaker or speaker_of(member.name, self.config.speaker_from, self._home)
        source = Source(archive.location, member.first_byte, member.n_bytes, seconds=entry.seconds)
        note = "; ".join(part for part in (entry.note, archive.doubt) if part)
        return Recording(name, speaker, entry.text, split, _defect(member) or again, note, source)

    def _entries(self) -> dict[str, Entry] | None:
        """What a manifest tells of members, by their names; None without a manifest."""
        if self.config.manifest is None:
            return None
        with named("manifest"):
            manifests = expanded(self.config.manifest)
        found = (entry for manifest in manifests for _, entry in read_entries("manifest", manifest, read_entry))
        return {entry.audio: entry for entry in found}


def samples(members: Sequence[Member]) -> Iterator[tuple[Member, Entry]]:
    """Yield each audio file, with what the other files of its sample tell of it."""
    shown = [member for member in members if not PurePosixPath(member.name).name.startswith((".", "__"))]
    for _, group in groupby(shown, lambda member: _key(member.name)):
        together = list(group)
        for audio in together:
            if audio.name.lower().endswith(EXTENSIONS + UNREAD_EXTENSIONS):
                yield audio, _description(audio, together)


def _key(name: str) -> str:
    """What the files of a sample have in common: all up to the first dot of the last part."""
    folder, slash, file = name.rpartition("/")
    return folder + slash + file.partition(".")[0]


def _description(audio: Member, sample: Sequence[Member]) -> Entry:
    entry = Entry(audio.name)
    for member in sample:
        try:
            text = member.content.decode("utf-8-sig").strip()
            if member.name.lower().endswith(".json") and text:
                values = json.loads(text)
                told = read_description(audio.name, values if isinstance(values, dict) else {})
                entry = replace(told, text=told.text or entry.text)
            elif text:
                entry = replace(entry, text=entry.text or text)
        except ValueError as error:
            entry = replace(entry, note=f"{PurePosixPath(member.name).name} is not read: {error}")
    return entry


def _defect(member: Member) -> str:
    if not member.whole:
        return "cut off with its archive"
    extension = PurePosixPath(member.name).suffix.lower()
    return f"{extension} is not read; convert it, to FLAC say" if extension in UNREAD_EXTENSIONS else ""
