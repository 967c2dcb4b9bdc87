"""Lhotse's recordings, supervisions and cuts as entries of a manifest. Source: lhotse 1.33, `to_dict` of each."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pipeline.audio.corpora.entry import Entry, length_field, require_text, seconds_field, text_field

# What lhotse does to sound when it is read, and every stage here does anyway.
_HARMLESS_TRANSFORMS = ("Resample",)
_DURATION = "duration"
# Sources that are files, or a member of Shar's archives.
_READ = ("file", "url", "shar")
_SAME_SECONDS = 1e-3


def recording_entry(values: Mapping[str, Any]) -> Entry:
    """All of a recording of lhotse's."""
    return _of_recording(values, None, None, None)


def stretch_entry(recording: Mapping[str, Any], supervision: Mapping[str, Any]) -> Entry:
    """What a supervision of lhotse's tells of its recording."""
    start, seconds = seconds_field(supervision, "start") or 0.0, length_field(supervision, _DURATION)
    channel = supervision.get("channel")
    entry = _of_recording(recording, start, seconds, channel if isinstance(channel, int) else None)
    return _with_speech(entry, [supervision])


def cut_entry(values: Mapping[str, Any]) -> Entry:
    """A cut of one recording, with what its supervisions tell."""
    recording = values.get("recording")
    if not isinstance(recording, Mapping):
        kind = values.get("type", "cut")
        return Entry(str(values.get("id", kind)), defect=f"lhotse's {kind} without a recording of its own")
    start, seconds = seconds_field(values, "start") or 0.0, length_field(values, _DURATION)
    channel = values.get("channel")
    entry = _of_recording(recording, start, seconds, channel if isinstance(channel, int) else None)
    supervisions = values.get("supervisions") or []
    return _with_speech(entry, [one for one in supervisions if isinstance(one, Mapping)])


def _of_recording(
    recording: Mapping[str, Any], start: float | None, seconds: float | None, channel: int | None
) -> Entry:
    """A stretch of a recording; the whole of it is named as such."""
    told = length_field(recording, _DURATION)
    if start == 0.0 and seconds is not None and told is not None and abs(seconds - told) < _SAME_SECONDS:
        start = None
    entry = _source(recording, channel)
    transforms = [_transform(one) for one in recording.get("transforms") or []]
    lost = [one for one in transforms if one not in _HARMLESS_TRANSFORMS]
    note = f"transforms of the manifest are not applied: {', '.join(lost)}" if lost else ""
    return replace(entry, start=start, seconds=told if start is None else seconds, note=note)


def _source(recording: Mapping[str, Any], channel: int | None) -> Entry:
    """The one file that the wanted channel lies in, or all of them."""
    sources = recording.get("sources")
    if not isinstance(sources, list) or not all(isinstance(source, Mapping) for source in sources):
        raise ValueError(f"`sources` of the recording {recording.get('id')} is {sources!r}, not a list of sources")
    name = str(recording.get("id", ""))
    holding = [source for source in sources if channel is None or channel in _channels(source)]
    if len(holding) != 1:
        return Entry(name, defect=f"its channels lie in {len(sources)} files, and {len(holding)} of them are meant")
    kind, place = holding[0].get("type"), holding[0].get("source")
    if kind not in _READ or not isinstance(place, str):
        return Entry(name, defect=f"its sound is the output of lhotse's `{kind}`, which is not run")
    channels = _channels(holding[0])
    index = channels.index(channel) if channel is not None and len(channels) > 1 else None
    return Entry(require_text("source", place), channel=index)


def _channels(source: Mapping[str, Any]) -> list[int]:
    return source.get("channels") or [0]


def _transform(value: object) -> str:
    return str(value.get("name") or value.get("type")) if isinstance(value, Mapping) else str(value)


def _with_speech(entry: Entry, supervisions: Sequence[Mapping[str, Any]]) -> Entry:
    texts = [text for one in supervisions if (text := text_field(one, ("text",)))]
    speakers = sorted({speaker for one in supervisions if (speaker := text_field(one, ("speaker",)))})
    whole = len(texts) == len(supervisions)
    return replace(entry, text=" ".join(texts) if texts and whole else None, speaker="+".join(speakers) or None)
