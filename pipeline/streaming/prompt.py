"""A recording that a model is to continue."""

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline.audio.codecs.codec import Codec
from pipeline.audio.decoding import AudioStream
from pipeline.audio.reading import TooLongRecording, UnusableRecording, read_audio
from pipeline.audio.resampling import resample

# Below, a codec would make silence loud.
SILENT_PEAK = 1e-4
# No recorder has more; a header may say anything, and seconds are as long as it says.
HIGHEST_RATE = 768_000


def read_prompt(path: Path, codec: Codec, name: str, max_seconds: float = math.inf) -> Tensor:
    """The codes [F, Q] of a recording of any format and rate that data are read in.

    Args:
        path: the file.
        codec: whose codes.
        name: what to call the recording in errors.
        max_seconds: longer ones are refused.

    Raises:
        ValueError: when it cannot be read, is too long, or nothing is to be heard in it; the message names it, and the
            remedy.
    """
    try:
        with AudioStream(path) as stream:
            if stream.sample_rate > HIGHEST_RATE:
                raise ValueError(f"{name}: its header tells of {stream.sample_rate} Hz; give a recording of speech.")
        audio, sample_rate = read_audio(path, max_seconds)
    except TooLongRecording:
        raise ValueError(f"{name}: longer than {max_seconds:g} s; give the last seconds of it alone.") from None
    except UnusableRecording as unusable:
        raise ValueError(f"{name}: {unusable.reason}; give a WAV, FLAC, Ogg or MP3 file of speech.") from None
    return encode_prompt(audio, sample_rate, codec, name)


def encode_prompt(audio: np.ndarray, sample_rate: int, codec: Codec, name: str) -> Tensor:
    """The codes [F, Q] of mono audio [s].

    Raises:
        ValueError: when nothing is to be heard in it, or samples are no numbers; the message names it, and the remedy.
    """
    samples = torch.from_numpy(resample(audio, sample_rate, codec.sample_rate))
    if not torch.isfinite(samples).all():
        raise ValueError(f"{name}: holds NaN or infinite samples; give a recording of speech.")
    if not len(samples) or float(samples.abs().max()) < SILENT_PEAK:
        raise ValueError(f"{name}: nothing is to be heard in it; give a recording of speech.")
    return codec.encode(samples)
