"""Audio files and waveforms: read whole, and write."""

import math
from pathlib import Path

import numpy as np
import soundfile

from pipeline.audio.source import Source
from pipeline.audio.stretch import open_sound
from pipeline.audio.survey import Take, survey, taken_blocks
from pipeline.audio.unusable import TooLongRecording, UnusableRecording
from pipeline.plumbing.files import atomic_write

__all__ = ["TooLongRecording", "UnusableRecording", "read_audio", "read_take", "write_wav"]


def read_audio(place: Source | Path | str, max_seconds: float = math.inf) -> tuple[np.ndarray, int]:
    """Read audio of any format that `soundfile` decodes: WAV, FLAC, Ogg, MP3, AIFF, AU, CAF and others.

    Args:
        place: the file, or where else it lies.
        max_seconds: longer ones are refused before they fill the memory.

    Returns:
        The samples [S] as float32, channels averaged (one of them where they cancel), full scale ±1; and the sample
        rate in Hz.

    Raises:
        TooLongRecording: it is longer than `max_seconds`.
        UnusableRecording: there is no such file, or it does not hold all that it promises.
    """
    found = survey(place, silence_rms=0.0, max_seconds=max_seconds)
    if found.damage:
        raise UnusableRecording(found.damage)
    return read_take(place, found.take)


def read_take(place: Source | Path | str, take: Take) -> tuple[np.ndarray, int]:
    """The samples [S] of a recording that are used, float32 mono; and its sample rate in Hz.

    Raises:
        UnusableRecording: they are not there any more.
    """
    with open_sound(Source.of(place)) as stream:
        return np.concatenate([np.zeros(0, np.float32), *taken_blocks(stream, take)]), stream.sample_rate


def write_wav(path: Path | str, audio: np.ndarray, sample_rate: int) -> None:
    """Write samples [S] as a 16-bit mono WAV file, whole or not at all; samples beyond ±1 are clipped.

    Raises:
        ValueError: the audio is not one-dimensional, or holds NaN or infinite samples.
    """
    audio = np.asarray(audio)
    if audio.ndim != 1:
        raise ValueError(f"{path}: expected mono samples [S], not an array of shape {list(audio.shape)}.")
    if not np.isfinite(audio).all():
        raise ValueError(f"{path}: the audio holds NaN or infinite samples.")
    with atomic_write(path) as temporary:
        soundfile.write(temporary, np.clip(audio, -1.0, 1.0), sample_rate, subtype="PCM_16", format="WAV")
