"""The sound card, played by a stand-in for sounddevice: none of the machines that run tests has one."""

import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.streaming.interruption import Interruption
from pipeline.streaming.sinks import open_sink
from pipeline.streaming.speaker import Speaker

AUDIO = np.arange(1, 11, dtype=np.float32)


class StopPlaying(Exception):  # noqa: N818
    pass


class SoundCard:
    """Asks for blocks of four samples as fast as it can, as PortAudio does at its own pace."""

    def __init__(self, sample_rate, channels, dtype, callback, finished_callback) -> None:
        assert (channels, dtype) == (1, "float32")
        self.heard, self.aborted = np.zeros(0, np.float32), False
        self._callback, self._finished = callback, finished_callback
        self._thread = threading.Thread(target=self._play)
        SoundCard.latest = self

    def _play(self) -> None:
        while not self.aborted:
            out = np.full((4, 1), np.nan, np.float32)
            try:
                self._callback(out, 4, None, None)
            except StopPlaying:
                self.aborted = True
            self.heard = np.concatenate((self.heard, out[:, 0]))
        self._finished()

    def abort(self) -> None:
        self.aborted = True

    def __enter__(self) -> "SoundCard":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()


@pytest.fixture
def sound_card(monkeypatch: pytest.MonkeyPatch) -> None:
    module = SimpleNamespace(OutputStream=SoundCard, CallbackStop=StopPlaying, PortAudioError=OSError)
    monkeypatch.setitem(sys.modules, "sounddevice", module)


def test_everything_is_played_once_and_in_order(sound_card: None) -> None:
    with open_sink("speaker", 8000, Interruption()) as sink:
        for block in np.split(AUDIO, [3, 4]):
            sink.write(block)
    np.testing.assert_array_equal(SoundCard.latest.heard[SoundCard.latest.heard != 0], AUDIO)


def test_an_end_that_is_requested_does_not_wait_for_what_is_left(sound_card: None) -> None:
    interruption = Interruption()
    with open_sink("speaker", 8000, interruption):
        interruption.requested = True
    assert SoundCard.latest.aborted


def test_gaps_are_silent_and_counted() -> None:
    speaker, out = Speaker(), np.full((4, 1), np.nan, np.float32)
    assert speaker.fill(out)
    assert (out == 0).all()
    assert speaker.gaps == 0
    speaker.write(AUDIO[:6])
    assert speaker.fill(out)
    assert speaker.fill(out)
    np.testing.assert_array_equal(out[:, 0], [5, 6, 0, 0])
    assert speaker.gaps == 1
    speaker.finish()
    assert not speaker.fill(out)


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(
        ValueError, match=r"needs the package sounddevice; install it with `pip install melisma\[speaker"
    ):
        open_sink("speaker", 8000, Interruption()).__enter__()

    def refuse(*_: object, **__: object) -> None:
        raise OSError("no default device")

    module = SimpleNamespace(OutputStream=refuse, CallbackStop=StopPlaying, PortAudioError=OSError)
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    with pytest.raises(ValueError, match="the sound card says no: no default device; name a file"):
        open_sink("speaker", 8000, Interruption()).__enter__()
