"""Where speech goes while it is made up: a file, standard output, or the sound card."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import soundfile

from pipeline.audio.wav_stream import pcm16, wav_stream_header
from pipeline.plumbing.files import atomic_write
from pipeline.streaming.configuration import SPEAKER, STANDARD_OUTPUT
from pipeline.streaming.interruption import Interruption
from pipeline.streaming.speaker import open_speaker


class ListenerLeftError(Exception):
    """Nobody listens any more: no fault of anybody's."""


class Sink(Protocol):
    """Takes audio as it comes."""

    def write(self, audio: np.ndarray) -> None:
        """Take samples [s], float32, full scale ±1.

        Raises:
            ListenerLeftError: when nobody listens any more.
        """


@contextlib.contextmanager
def open_sink(to: str, sample_rate: int, interruption: Interruption) -> Iterator[Sink]:
    """Open what `StreamConfig.to` names; at the end a file is whole, and the sound card has played everything.

    Args:
        to: a file, `-` or `speaker`.
        sample_rate: in Hz.
        interruption: once it is requested, nothing more is played.

    Raises:
        ValueError: when there is no sound card, or nothing to drive it; the message names the remedy.
    """
    if to == STANDARD_OUTPUT:
        yield _Pipe(sample_rate)
    elif to == SPEAKER:
        with open_speaker(sample_rate, interruption) as speaker:
            yield speaker
    else:
        with atomic_write(Path(to)) as temporary, soundfile.SoundFile(temporary, "w", sample_rate, 1) as file:
            yield _File(file)


class _File:
    """A file in writing; its header is set right when it is closed."""

    def __init__(self, file: soundfile.SoundFile) -> None:
        self._file = file

    def write(self, audio: np.ndarray) -> None:
        self._file.write(np.clip(audio, -1.0, 1.0))


class _Pipe:
    """A WAV stream of unknown length on standard output, every block as soon as it is there."""

    def __init__(self, sample_rate: int) -> None:
        # Not through Python's buffer, which would be flushed once more when the process ends, listener or not.
        self._pipe = open(sys.stdout.fileno(), "wb", buffering=0, closefd=False)  # noqa: SIM115
        self._send(wav_stream_header(sample_rate))

    def write(self, audio: np.ndarray) -> None:
        self._send(pcm16(audio))

    def _send(self, block: bytes) -> None:
        try:
            while block:
                block = block[self._pipe.write(block) :]
        except BrokenPipeError:
            raise ListenerLeftError from None
