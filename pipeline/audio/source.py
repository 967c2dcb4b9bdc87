"""Where the sound of a recording lies: a file, a member of an archive, a stretch of either."""

import io
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pipeline.audio.containers import Segment, Window
from pipeline.audio.unusable import UnusableRecording
from pipeline.plumbing.locations import UnreachableError, fetched, opened, scheme_of, size_of

BUFFER_BYTES = 1 << 16
# What lies elsewhere is fetched in one request up to this size, and read block by block beyond.
FETCHED_BYTES = 1 << 26
_EMPTY = "the file is empty (0 bytes)"


@dataclass(frozen=True)
class Source:
    """Which bytes, and which of their sound.

    Attributes:
        path: of a file, or its URL.
        first_byte: where in the file the recording begins, for a member of an archive.
        n_bytes: how many are its own; None: all to the end.
        start: the second at which the stretch begins that is meant; None: all of the sound is.
        seconds: how long the stretch is. Where all of the sound is meant, what somebody promised of its length.
        channel: the one that is heard, counted from 0; None: all of them, averaged.
    """

    path: str
    first_byte: int = 0
    n_bytes: int | None = None
    start: float | None = None
    seconds: float | None = None
    channel: int | None = None

    @classmethod
    def of(cls, place: "Source | Path | str") -> "Source":
        """A source as it is, or all of a file."""
        return place if isinstance(place, Source) else cls(str(place))


def open_source(source: Source) -> tuple[BinaryIO, int]:
    """The bytes of a recording, and how many there are.

    Raises:
        UnusableRecording: they are not there.
        UnreachableError: the server or the network fails.
    """
    if scheme_of(source.path):
        return _open_elsewhere(source)
    file, size = _open(Path(source.path))
    if source.n_bytes is None:
        return file, size
    try:
        return _member(file, source.first_byte, source.n_bytes, size), source.n_bytes
    except UnusableRecording:
        file.close()
        raise


def _open_elsewhere(source: Source) -> tuple[BinaryIO, int]:
    try:
        n_bytes = size_of(source.path) if source.n_bytes is None else source.n_bytes
        if not n_bytes:
            raise UnusableRecording(_EMPTY)
        stop = source.first_byte + n_bytes
        if n_bytes > FETCHED_BYTES or source.start is not None:
            return _member(opened(source.path), source.first_byte, n_bytes, stop), n_bytes
        content = fetched(source.path, source.first_byte, stop)
    except UnreachableError:
        raise
    except OSError as error:
        raise UnusableRecording(str(error).rstrip(".")) from error
    if len(content) < n_bytes:
        raise UnusableRecording(_ends(source.first_byte + len(content), stop))
    return io.BytesIO(content), n_bytes


def _member(file: BinaryIO, first: int, n_bytes: int, size: int) -> BinaryIO:
    """Some bytes of an open file as a file of their own, which closes the other with itself."""
    if not n_bytes:
        raise UnusableRecording(_EMPTY)
    if first + n_bytes > size:
        raise UnusableRecording(_ends(size, first + n_bytes))
    return io.BufferedReader(_Member(file, Segment(first, first + n_bytes)), BUFFER_BYTES)


def _ends(size: int, stop: int) -> str:
    return f"its archive ends at byte {size}, before the recording does at {stop}"


class _Member(Window):
    """A window that is read by our own code, which is told when a read fails."""

    def __init__(self, file: BinaryIO, segment: Segment) -> None:
        super().__init__(file, segment)
        self._whole = file

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]
        """Fill the buffer as far as the segment goes; returns the number of bytes."""
        n_read = super().readinto(buffer)
        if self.error is not None:
            raise self.error
        return n_read

    def close(self) -> None:
        """Close the file as well."""
        self._whole.close()
        super().close()


def _open(path: Path) -> tuple[BinaryIO, int]:
    """A regular file with something in it, and its size; opening a pipe, say, would wait for ever."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:
        raise UnusableRecording(_describe(path, error)) from error
    status = os.fstat(descriptor)
    reason = ""
    if stat.S_ISDIR(status.st_mode):
        reason = "a folder, not a file"
    elif not stat.S_ISREG(status.st_mode):
        reason = "not a regular file"
    elif status.st_size == 0:
        reason = _EMPTY
    if reason:
        os.close(descriptor)
        raise UnusableRecording(reason)
    return os.fdopen(descriptor, "rb", buffering=BUFFER_BYTES), status.st_size


def _describe(path: Path, error: OSError | ValueError) -> str:
    if isinstance(error, FileNotFoundError):
        return "a link to a file that does not exist" if path.is_symlink() else "the file does not exist"
    if isinstance(error, PermissionError):
        return "permission denied"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return " ".join(str(error).split())
