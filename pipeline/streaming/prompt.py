"""A recording that a model is to continue."""

from pathlib import Path

import torch
from torch import Tensor

from pipeline.audio.codecs.codec import Codec
from pipeline.audio.reading import UnusableRecording, read_audio
from pipeline.audio.resampling import resample

# Below, a codec would make silence loud.
SILENT_PEAK = 1e-4


def read_prompt(path: Path, codec: Codec, name: str) -> Tensor:
    """The codes [F, Q] of a recording of any format and rate that data are read in.

    Args:
        path: the file.
        codec: whose codes.
        name: what to call the recording in errors.

    Raises:
        ValueError: when it cannot be read, or nothing is to be heard in it; the message names it, and the remedy.
    """
    try:
        audio, sample_rate = read_audio(path)
    except UnusableRecording as unusable:
        raise ValueError(f"{name}: {unusable.reason}; give a WAV, FLAC, Ogg or MP3 file of speech.") from None
    samples = torch.from_numpy(resample(audio, sample_rate, codec.sample_rate))
    if not len(samples) or not torch.isfinite(samples).all() or float(samples.abs().max()) < SILENT_PEAK:
        raise ValueError(f"{name}: nothing is to be heard in it; give a recording of speech.")
    return codec.encode(samples)
