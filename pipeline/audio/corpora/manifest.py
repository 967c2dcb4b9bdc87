"""Manifests: JSON lines or tables that name audio wherever it lies, with what is known of it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from pipeline.audio.corpora.configuration import ManifestConfig
from pipeline.audio.corpora.corpus import ListedCorpus, Recording
from pipeline.audio.corpora.entry import Entry
from pipeline.audio.corpora.lhotse_entry import recording_entry, stretch_entry
from pipeline.audio.corpora.listing import (
    Located,
    Names,
    common_folder,
    located,
    name_of,
    named,
    read_entries,
    speaker_of,
    stretch_name,
    written_name,
)
from pipeline.audio.corpora.manifest_entry import read_entry
from pipeline.audio.corpora.manifest_lines import is_table
from pipeline.audio.source import Source
from pipeline.plumbing.locations import beside, exists, expanded, folder_of, normalised

# Where Common Voice has the files that its tables name.
CLIPS = "clips"


@dataclass(frozen=True)
class _Manifest:
    """A file that lists recordings, where relative paths in it start, and what one of its lines says."""

    place: Located
    folder: str
    read: Callable[[Mapping[str, Any]], Entry]


@dataclass(frozen=True)
class ManifestCorpus(ListedCorpus):
    """What manifests name; no audio is opened to list it."""

    config: ManifestConfig
    name = "manifest"

    def recordings(self) -> Iterator[Recording]:
        """Yield the recordings and stretches of recordings, in the order of the lines."""
        names = Names()
        for manifest in self._supervisions() if self.config.supervisions else self._manifests():
            shown = name_of(manifest.place.location, self._home)
            for number, entry in read_entries(manifest.place.key, manifest.place.location, manifest.read):
                yield self._recording(entry, manifest, names, f"line {number} of {shown}")

    def _recording(self, entry: Entry, manifest: _Manifest, names: Names, where: str) -> Recording:
        location = beside(manifest.folder, entry.audio)
        source = Source(location, start=entry.start, seconds=entry.seconds, channel=entry.channel)
        file = written_name(entry.audio, location, self._home)
        name, again = names.of(stretch_name(file, source), where)
        speaker = entry.speaker or speaker_of(file, self.config.speaker_from, self._home)
        return Recording(name, speaker, entry.text, manifest.place.split, entry.defect or again, entry.note, source)

    def _manifests(self) -> Iterator[_Manifest]:
        for place in self._located:
            yield _Manifest(place, self._audio_folder(place), read_entry)

    def _supervisions(self) -> Iterator[_Manifest]:
        """Yield lhotse's supervisions, each of them to be read beside the recordings that it names."""
        recordings: dict[str, Mapping[str, Any]] = {}

        def keep(values: Mapping[str, Any]) -> Entry:
            recordings[str(values.get("id"))] = values
            return recording_entry(values)

        for place in self._located:
            for _ in read_entries(place.key, place.location, keep):
                pass
        with named("supervisions"):
            locations = expanded(self.config.supervisions or ())
        for location in locations:
            place = Located("supervisions", None, location)
            yield _Manifest(place, self._home, partial(_supervised, recordings=recordings))

    @cached_property
    def _located(self) -> list[Located]:
        return located(self.config)

    @cached_property
    def _home(self) -> str:
        """Where names start."""
        if self.config.audio_root is not None:
            return normalised(self.config.audio_root)
        return common_folder([place.location for place in self._located])

    def _audio_folder(self, place: Located) -> str:
        if self.config.audio_root is not None:
            return self._home
        folder = folder_of(place.location)
        with named(place.key):
            clips = beside(folder, CLIPS)
            return clips if is_table(place.location) and exists(clips) else folder


def _supervised(values: Mapping[str, Any], recordings: Mapping[str, Mapping[str, Any]]) -> Entry:
    recording = recordings.get(str(values.get("recording_id")))
    if recording is None:
        raise ValueError(f"`recording_id` is {values.get('recording_id')!r}, which data.path does not have")
    return stretch_entry(recording, values)
