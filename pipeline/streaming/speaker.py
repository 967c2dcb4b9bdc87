"""The sound card, through PortAudio: speech is played while it is made up, and generation does not wait for it."""

import contextlib
import queue
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

from pipeline.streaming.interruption import Interruption

# How long a request to end may go unnoticed while the last words are played.
PATIENCE = 0.1
INSTALL = "install it with `pip install melisma[speaker]`"


class Speaker:
    """What is still to be played, and the callback that PortAudio takes it with.

    Attributes:
        played: set once everything has been played.
        gaps: blocks that were due before they were there.
    """

    def __init__(self) -> None:
        self.played = threading.Event()
        self.gaps = 0
        self._blocks: queue.SimpleQueue[np.ndarray | None] = queue.SimpleQueue()
        self._block = np.zeros(0, np.float32)
        self._has_begun = self._has_ended = False

    def write(self, audio: np.ndarray) -> None:
        """Queue samples [s]."""
        self._blocks.put(audio)

    def finish(self) -> None:
        """Say that nothing follows."""
        self._blocks.put(None)

    def fill(self, out: np.ndarray) -> bool:
        """Fill `out` [s, 1] with what is due, and silence where nothing is; return whether more follows."""
        n_filled = 0
        while n_filled < len(out) and not self._has_ended:
            if not len(self._block):
                try:
                    block = self._blocks.get_nowait()
                except queue.Empty:
                    self.gaps += self._has_begun
                    break
                self._has_ended = block is None
                self._block = np.zeros(0, np.float32) if block is None else block
                continue
            n = min(len(out) - n_filled, len(self._block))
            out[n_filled : n_filled + n, 0] = self._block[:n]
            self._block = self._block[n:]
            n_filled += n
            self._has_begun = True
        out[n_filled:] = 0
        return not self._has_ended


@contextlib.contextmanager
def open_speaker(sample_rate: int, interruption: Interruption) -> Iterator[Speaker]:
    """Open the default sound card; at the end wait until it has played everything, or an end is requested.

    Args:
        sample_rate: in Hz.
        interruption: once it is requested, nothing more is played.

    Raises:
        ValueError: when there is no sound card, or nothing to drive it; the message names the remedy.
    """
    sounddevice, speaker = _sounddevice(), Speaker()

    def play(out: np.ndarray, n_samples: int, time: Any, status: Any) -> None:
        if not speaker.fill(out):
            raise sounddevice.CallbackStop

    try:
        stream = sounddevice.OutputStream(
            sample_rate, channels=1, dtype="float32", callback=play, finished_callback=speaker.played.set
        )
    except sounddevice.PortAudioError as error:
        raise ValueError(
            f"to is speaker, and the sound card says no: {error}; name a file, as to=speech.wav."
        ) from None
    with stream:
        yield speaker
        speaker.finish()
        while not interruption.requested and not speaker.played.wait(PATIENCE):
            pass
        if interruption.requested:
            stream.abort()


def _sounddevice() -> Any:
    try:
        import sounddevice
    except ModuleNotFoundError:
        raise ValueError(f"to is speaker, which needs the package sounddevice; {INSTALL}, or name a file.") from None
    except OSError as error:
        raise ValueError(
            f"to is speaker, and sounddevice finds no PortAudio ({error}); install that (Debian: libportaudio2), or "
            "name a file."
        ) from None
    return sounddevice
