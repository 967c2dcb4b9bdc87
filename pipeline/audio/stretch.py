"""A stretch of a file's sound: sought, not decoded up to, wherever a decoder can seek."""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import soundfile

from pipeline.audio.containers import Layout, examine
from pipeline.audio.decoding import STEP_SAMPLES, TOLERATED_SECONDS, AudioStream
from pipeline.audio.source import Source, open_source
from pipeline.audio.unusable import UnusableRecording

# Files whose containers a process remembers: the stretches of one follow one another.
REMEMBERED = 16


def open_sound(source: Source) -> AudioStream:
    """The sound that a source means, to be read block by block.

    Raises:
        UnusableRecording: there is none.
    """
    return AudioStream(source) if source.start is None else StretchStream(source)


class StretchStream(AudioStream):
    """An open file of which one stretch is read; what is odd elsewhere in it is not told."""

    def __init__(self, source: Source) -> None:
        self._source = source
        super().__init__(source)
        start, self.notes = source.start or 0.0, []
        self._first = round(start * self.sample_rate)
        self._length = None if source.seconds is None else round((start + source.seconds) * self.sample_rate)
        if self._length is not None:
            self._length -= self._first
        self._whole_seconds = self.announced_seconds
        self.announced_seconds = source.seconds
        if source.seconds is None and self._whole_seconds is not None:
            self.announced_seconds = max(0.0, self._whole_seconds - start)

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield float32 samples [S, channels] of the stretch, full scale ±1.

        Raises:
            UnusableRecording: the file ends before the stretch begins, or the disk failed.
        """
        n_frames = 0
        for block in self._sought() if self._seek() else self._decoded_up_to():
            yield block
            n_frames += len(block)
        missing = 0 if self._length is None else self._length - n_frames
        if missing > TOLERATED_SECONDS * self.sample_rate:
            fault = self.damage or self._layout.segments[-1].fault or "its file ends within it"
            self.damage = f"holds {n_frames / self.sample_rate:.1f} of {self.announced_seconds:.1f} s: {fault}"

    def _seek(self) -> bool:
        """Whether the decoder stands at the stretch now."""
        if len(self._layout.segments) > 1:
            return False
        try:
            return self._decoder.seek(self._first) == self._first
        except (soundfile.SoundFileError, RuntimeError, ValueError):
            # A decoder that cannot seek is where it was, at the beginning.
            if self._whole_seconds is not None and self._first >= self._whole_seconds * self.sample_rate:
                raise self._beyond(self._whole_seconds) from None
            return False

    def _sought(self) -> Iterator[np.ndarray]:
        for block in self._read("float32", STEP_SAMPLES, stop=self._length):
            if isinstance(block, str):
                self.damage = block
                return
            yield block

    def _decoded_up_to(self) -> Iterator[np.ndarray]:
        """The stretch of a file that is decoded from its beginning."""
        at, stop = 0, None if self._length is None else self._first + self._length
        for block in super().blocks():
            wanted = block[max(0, self._first - at) : None if stop is None else max(0, stop - at)]
            at += len(block)
            if len(wanted):
                yield wanted
            if stop is not None and at >= stop:
                return
        if at <= self._first:
            raise self._beyond(at / self.sample_rate)
        self.damage = self.damage and f"its file {self.damage}"

    def _beyond(self, held: float) -> UnusableRecording:
        begins = self._first / self.sample_rate
        return UnusableRecording(f"begins at {begins:.1f} s of a file that holds {held:.1f} s")

    def _examine(self, size: int) -> Layout:
        return _layout(Source(self._source.path, self._source.first_byte, self._source.n_bytes), size)


@lru_cache(maxsize=REMEMBERED)
def _layout(source: Source, size: int) -> Layout:
    """What a container says of itself: some are read from end to end for that, once for all stretches of a file."""
    file, _ = open_source(source)
    with file:
        return examine(file, size)
