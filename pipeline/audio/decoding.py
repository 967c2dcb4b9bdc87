"""From an audio file to blocks of samples, up to where its sound truly ends."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np
import soundfile

from pipeline.audio.containers import Layout, Segment, Window, examine
from pipeline.audio.source import Source, open_source
from pipeline.audio.unusable import UnusableRecording
from pipeline.plumbing.locations import UnreachableError

# Samples of all channels: in memory at once, asked of the decoder in one call, and where it is about to fail.
BLOCK_SAMPLES = 1 << 18
STEP_SAMPLES = 1 << 16
SMALL_STEP_SAMPLES = 1 << 6
# What may be missing without a word, and what a word is enough for: lossy codecs count blocks and delays differently.
SILENT_SECONDS = 0.001
TOLERATED_SECONDS = 0.1
_CHECKED_BITS = (8, 16, 24)


class AudioStream:
    """An open audio file, or member of an archive, decoded block by block up to its end or its first fault.

    What the container promises is compared with what is read: `notes` say what is odd although all sound is there,
    `damage` says what is not there. Both are complete once the blocks have been read to their end. Nothing behind a
    fault is read: sound from both sides of a gap would be put together.

    Attributes:
        sample_rate: in Hz.
        channels: how many.
        announced_seconds: the length that the header tells; None where it does not.
        notes: what is to be said of the file.
        damage: what is missing; empty where nothing is.
    """

    def __init__(self, source: Source | Path | str) -> None:
        self._file, size = open_source(Source.of(source))
        try:
            self._layout: Layout = self._examine(size)
            self._decoder, self._window = self._open_segment(self._layout.segments[0])
        except BaseException as error:
            self._file.close()
            if isinstance(error, OSError):
                raise _unreadable(error) from error
            raise
        self.sample_rate = self._decoder.samplerate
        self.channels = self._decoder.channels
        self.announced_seconds = self._announced(self._layout.segments[0])
        self.notes = list(self._layout.notes)
        self.damage = ""
        self._seconds_before = 0.0
        if len(self._layout.segments) > 1:
            self.notes.append(f"holds {len(self._layout.segments)} streams, one after another")

    def __enter__(self) -> "AudioStream":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._decoder.close()
        self._file.close()

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield float32 samples [S, channels], full scale ±1.

        Raises:
            UnusableRecording: the disk failed.
            UnreachableError: the server or the network did.
        """
        for index, segment in enumerate(self._layout.segments):
            if index > 0 and not self._continue(segment):
                return
            yield from self._segment_blocks(segment)
            if self.damage:
                return

    def _examine(self, size: int) -> Layout:
        return examine(self._file, size)

    def _continue(self, segment: Segment) -> bool:
        """Go on with the next stream; one that cannot go on from the one before is damage."""
        self._decoder.close()
        try:
            self._decoder, self._window = self._open_segment(segment)
        except UnusableRecording as error:
            self.damage = f"holds {self._seconds_before:.1f} s, then a stream that is {error.reason}"
            return False
        if (self._decoder.samplerate, self._decoder.channels) != (self.sample_rate, self.channels):
            self.damage = (
                f"holds {self._seconds_before:.1f} s, then a stream of another kind "
                f"({self._decoder.samplerate} Hz, {self._decoder.channels} channels)"
            )
            return False
        return True

    def _segment_blocks(self, segment: Segment) -> Iterator[np.ndarray]:
        digest = hashlib.md5(usedforsecurity=False) if segment.md5 and segment.sample_bits in _CHECKED_BITS else None
        n_frames, failure = 0, ""
        for block in self._decoded(segment, "int32" if digest else "float32"):
            if isinstance(block, str):
                failure = block
                break
            n_frames += len(block)
            if digest is None:
                yield block
            else:
                digest.update(_unencoded(block, segment.sample_bits))
                # The decoder left-justifies: powers of two, as exact as its own floats.
                yield (block * 2.0**-31).astype(np.float32)
        self._judge(segment, n_frames, failure, digest.digest() if digest else segment.md5)

    def _decoded(self, segment: Segment, dtype: str) -> Iterator[np.ndarray | str]:
        """Yield blocks [S, channels], and where the decoder failed what it said.

        A failure takes what was decoded in the same call with it. So the stream is decoded once more up to there, and
        then in small steps.
        """
        n_frames = 0
        for block in self._read(dtype, STEP_SAMPLES):
            if isinstance(block, str):
                break
            n_frames += len(block)
            yield block
        else:
            return
        self._decoder.close()
        self._decoder, self._window = self._open_segment(segment)
        n_skipped = 0
        for block in self._read(dtype, STEP_SAMPLES if n_frames else SMALL_STEP_SAMPLES, stop=n_frames):
            n_skipped += len(block)
        if n_skipped == n_frames:
            yield from self._read(dtype, SMALL_STEP_SAMPLES)
        else:
            yield "the decoder does not give the same twice"

    def _read(self, dtype: str, step_samples: int, stop: int | None = None) -> Iterator[np.ndarray | str]:
        """Yield blocks up to the frame `stop`, the end, or a failure: what the decoder said, which comes last."""
        length = max(1, BLOCK_SAMPLES // self.channels)
        step = max(1, step_samples // self.channels)
        n_frames, failure, n_read = 0, "", 1
        while n_read and not failure and n_frames != stop:
            block = np.empty((length if stop is None else min(length, stop - n_frames), self.channels), dtype)
            n_filled = 0
            while n_filled < len(block) and n_read:
                try:
                    n_read = len(self._decoder.read(out=block[n_filled : n_filled + step]))
                except (soundfile.SoundFileError, RuntimeError, ValueError) as error:
                    failure = one_line(error)
                    break
                n_filled += n_read
            if self._window.error is not None:
                raise _unreadable(self._window.error)
            n_frames += n_filled
            if n_filled:
                yield block[:n_filled]
        if failure:
            yield failure

    def _judge(self, segment: Segment, n_frames: int, failure: str, md5: bytes) -> None:
        """Compare what was read of a segment with what it promised."""
        held, promised = n_frames / self.sample_rate, self._announced(segment)
        before = self._seconds_before
        self._seconds_before += held
        missing = 0.0 if promised is None else promised - held
        holds = _holds(before + held, None if promised is None else before + promised)
        whole = promised is not None and abs(missing) < SILENT_SECONDS and md5 == segment.md5
        if failure and whole and not segment.fault:
            self.notes.append("what follows its sound cannot be decoded")
        elif segment.fault or failure or missing > TOLERATED_SECONDS:
            self.damage = ": ".join(part for part in (holds, segment.fault or failure) if part)
        elif md5 != segment.md5:
            self.damage = f"{holds}, but not the samples that were encoded (MD5)"
        elif missing > SILENT_SECONDS:
            self.notes.append(holds)
        elif missing < -SILENT_SECONDS:
            self.notes.append(f"its header tells of {promised:.1f} s, {held:.1f} s are there and were read")

    def _announced(self, segment: Segment) -> float | None:
        """The seconds that a segment, which is open, promises."""
        if segment.decoder_knows and self.sample_rate > 0:
            return float(self._decoder.frames / self.sample_rate / segment.held)
        return segment.promised_seconds

    def _open_segment(self, segment: Segment) -> tuple["_Sequential", Window]:
        window = Window(self._file, segment)
        try:
            return _Sequential(window), window
        except (soundfile.SoundFileError, RuntimeError, ValueError, TypeError, MemoryError) as error:
            raise UnusableRecording(f"not a readable audio file ({one_line(error)})") from error


class _Sequential(soundfile.SoundFile):
    """A file that is only read on: soundfile's own seek after every read fails where the length is not known."""

    def seekable(self) -> bool:
        return False


def _unreadable(error: OSError) -> Exception:
    """The verdict on a file that cannot be read on, unless the fault is not its own."""
    return error if isinstance(error, UnreachableError) else UnusableRecording(one_line(error))


def one_line(error: BaseException) -> str:
    """The words of an error that fit a table cell."""
    if isinstance(error, soundfile.LibsndfileError):
        text = error.error_string
    else:
        text = getattr(error, "strerror", None) or str(error)
    if "possibly a pipe" in text:  # as libsndfile has it where a file ends within its header
        text = "its header is cut off"
    return " ".join(text.split()).removeprefix("Error : ").rstrip(".") or type(error).__name__


def _holds(held: float, promised: float | None) -> str:
    if promised is None:
        return f"holds {held:.1f} s"
    digits = 1 if abs(promised - held) > TOLERATED_SECONDS else 3
    return f"holds {held:.{digits}f} of {promised:.{digits}f} s"


def _unencoded(block: np.ndarray, bits: int) -> bytes:
    """Left-justified samples [S, channels] as FLAC's digest takes them: signed, little-endian, interleaved."""
    samples = np.ascontiguousarray(block >> (32 - bits), dtype="<i4")
    return samples.view(np.uint8).reshape(-1, 4)[:, : bits // 8].tobytes()
