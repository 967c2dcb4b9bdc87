"""What a line of a manifest says: of NeMo's, moshi's, AudioCraft's and Common Voice's, and of lhotse's."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pipeline.audio.corpora.entry import Entry, audio_field, length_field, seconds_field, text_field
from pipeline.audio.corpora.lhotse_entry import cut_entry, recording_entry

# What fields are called by those, and in folders of audio on model hubs.
AUDIO = ("audio_filepath", "path", "audio_path", "file_name", "file", "wav")
TEXT = ("text", "sentence", "transcription", "transcript")
SPEAKER = ("speaker", "client_id", "speaker_id")


def read_entry(values: Mapping[str, Any]) -> Entry:
    """The entry of a line.

    Raises:
        ValueError: naming the field, and what it should be.
    """
    if "supervisions" in values or str(values.get("type", "")).endswith("Cut"):
        return cut_entry(values)
    if "sources" in values:
        return recording_entry(values)
    if "recording_id" in values:
        raise ValueError(
            "is one of lhotse's supervisions: give the file of recordings as data.path, and this one as "
            "data.supervisions"
        )
    name = next((name for name in AUDIO if values.get(name) is not None), None)
    if name is None:
        raise ValueError(f"has no field for the audio ({', '.join(AUDIO)}); it has {', '.join(values) or 'none'}")
    described = read_description(audio_field(values, name), values)
    return replace(described, start=seconds_field(values, "offset"))


def read_description(audio: str, values: Mapping[str, Any]) -> Entry:
    """What fields say of all of an audio file.

    Raises:
        ValueError: naming the field, and what it should be.
    """
    seconds = length_field(values, "duration")
    return Entry(audio, seconds=seconds, text=text_field(values, TEXT), speaker=text_field(values, SPEAKER))
