"""The utterances a reader can listen to: which to show, and how they are embedded."""

import base64
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from pipeline.plumbing.files import read_json
from pipeline.reporting.formatting import as_number

KINDS = ("real", "codec", "continuation", "unprompted")


@dataclass(frozen=True)
class Clip:
    """One utterance to listen to.

    `audio` is [samples] float32 mono, `kind` one of `KINDS`, `source` the real utterance it is from. Clips of one
    `pair` belong in one row: a recording, the same through the codec, and its continuation.
    """

    kind: str
    audio: np.ndarray
    sample_rate: int
    source: str | None = None
    pair: str | None = None
    prompt_seconds: float = 0.0
    flatness: float = math.nan

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return len(self.audio) / self.sample_rate


def load_clips(folder: Path, n_examples: int) -> tuple[Clip, ...]:
    """Read `n_examples` clips of each kind from the evaluation's `folder`, real and codec beside their continuations.

    Returns an empty tuple when `folder` has no audio.json. Kinds this page does not show are passed over.

    Raises:
        FileNotFoundError: a listed audio file does not exist.
        ValueError: an entry of audio.json lacks a field, points outside `folder`, or is not readable audio.
    """
    index = folder / "audio.json"
    if not index.exists():
        return ()
    entries = read_json(index)
    if not isinstance(entries, list):
        raise ValueError(f"{index} holds a {type(entries).__name__}, not a list; run the evaluate stage again.")
    for i, entry in enumerate(entries):
        if not isinstance(entry, Mapping) or "file" not in entry or "kind" not in entry:
            raise ValueError(f"{index}, entry {i + 1}: `file` and `kind` are needed; run the evaluate stage again.")
    return tuple(_read(folder, entry) for kind in KINDS for entry in _choose(entries, kind)[:n_examples])


def _pair(entry: Mapping[str, Any]) -> str | None:
    """What an entry has in common with the others of its row: its number, or else its source."""
    pair = entry.get("number", entry.get("source"))
    return None if pair is None else str(pair)


def _choose(entries: list[Mapping[str, Any]], kind: str) -> list[Mapping[str, Any]]:
    """Order the entries of one kind by how many other kinds they can be heard beside, then as they are listed."""
    kinds: dict[str | None, set[str]] = {}
    for entry in entries:
        if entry["kind"] != "unprompted":
            kinds.setdefault(_pair(entry), set()).add(entry["kind"])
    order = {pair: position for position, pair in enumerate(kinds)}
    chosen = [entry for entry in entries if entry["kind"] == kind]
    if kind == "unprompted":
        return chosen
    return sorted(chosen, key=lambda entry: (-len(kinds[_pair(entry)]), order[_pair(entry)]))


def _read(folder: Path, entry: Mapping[str, Any]) -> Clip:
    path = _locate(folder, str(entry["file"]))
    try:
        audio, sample_rate = soundfile.read(path, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{path} is not readable audio ({error}); run the evaluate stage again.") from None
    if not len(audio):
        raise ValueError(f"{path} holds no samples; run the evaluate stage again.")
    prompt_seconds = as_number(entry.get("prompt_seconds"))
    source = entry.get("source")
    return Clip(
        kind=entry["kind"],
        audio=audio.mean(axis=1),
        sample_rate=sample_rate,
        source=None if source is None else str(source),
        pair=_pair(entry),
        prompt_seconds=0.0 if math.isnan(prompt_seconds) else prompt_seconds,
        flatness=as_number(entry.get("flatness")),
    )


def _locate(folder: Path, file: str) -> Path:
    """Find a listed file in the audio folder or beside it, and nowhere else."""
    for path in (folder / "audio" / file, folder / file):
        if not path.resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"{folder / 'audio.json'} lists {file}, outside {folder}; run the evaluate stage again.")
        if path.is_file():
            return path
    raise FileNotFoundError(f"{folder / 'audio' / file} is listed but does not exist; run the evaluate stage again.")


def wav_data_uri(clip: Clip) -> str:
    """Encode a clip as a `data:` address of a 16-bit WAV file, for an audio player without a network."""
    buffer = io.BytesIO()
    soundfile.write(buffer, np.clip(clip.audio, -1.0, 1.0), clip.sample_rate, format="WAV", subtype="PCM_16")
    return f"data:audio/wav;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
