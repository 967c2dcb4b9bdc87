"""Where the streams of a file lie, and a view of one of them that a decoder reads."""

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import BinaryIO


@dataclass(frozen=True)
class Segment:
    """One stream of a file, as its container describes it.

    Attributes:
        start: its first byte.
        stop: the byte after its last one that is whole.
        patches: bytes to be read in the place of others, by their offset in the file: lengths that a header has wrong.
        prefix: bytes to be read before the first: a header that the stream lacks.
        promised_seconds: the length that the container announces; None where it tells nothing that can be relied on.
        decoder_knows: whether the decoder's own reading of the header is the promise.
        held: the share of the announced bytes of sound that is there.
        fault: what ends the stream before its time; empty where nothing does.
        md5: the MD5 digest of the unencoded audio, where the container has one.
        sample_bits: the bits of a sample that the digest is taken over.
    """

    start: int
    stop: int
    patches: Mapping[int, bytes] = field(default_factory=dict)
    promised_seconds: float | None = None
    decoder_knows: bool = False
    held: float = 1.0
    fault: str = ""
    md5: bytes = b""
    sample_bits: int = 0
    prefix: bytes = b""


@dataclass(frozen=True)
class Layout:
    """The streams of a file, one after another, up to the first fault; and what else is to be said of it."""

    segments: tuple[Segment, ...]
    notes: tuple[str, ...] = ()


class Window(io.RawIOBase):
    """The bytes of a segment as a file of their own, patched.

    Attributes:
        error: what the operating system said when a read failed; None where none did. A decoder calls from C, where
            an exception would only be printed.
    """

    def __init__(self, file: BinaryIO, segment: Segment) -> None:
        self._file = file
        self._segment = segment
        self._position = 0
        self.error: OSError | None = None

    def __len__(self) -> int:
        return len(self._segment.prefix) + self._segment.stop - self._segment.start

    def readable(self) -> bool:
        """Whether it can be read, as any can."""
        return True

    def seekable(self) -> bool:
        """Whether it has positions, as any has."""
        return True

    def tell(self) -> int:
        """The position, from the start of the segment."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a position, never before the start."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: len(self)}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]
        """Fill the buffer as far as the segment goes; returns the number of bytes."""
        view = memoryview(buffer)
        prefix = self._segment.prefix[self._position : self._position + len(view)]
        if prefix:
            view[: len(prefix)] = prefix
            self._position += len(prefix)
            return len(prefix)
        offset = self._segment.start + self._position - len(self._segment.prefix)
        n_read = self._read(view[: max(0, min(len(view), self._segment.stop - offset))], offset)
        self._position += n_read
        return n_read

    def _read(self, view: memoryview, offset: int) -> int:
        """Read from an offset in the file, patched."""
        try:
            self._file.seek(offset)
            n_read = int(self._file.readinto(view))  # type: ignore[attr-defined]
        except OSError as error:
            self.error = error
            return 0
        for at, content in self._segment.patches.items():
            first, last = max(at, offset), min(at + len(content), offset + n_read)
            if first < last:
                view[first - offset : last - offset] = content[first - at : last - at]
        return n_read
