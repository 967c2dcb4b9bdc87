"""Where the sound of a recording lies: a file, a member of an archive, a stretch of either."""

import io
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pipeline.audio.containers import Segment, Window
from pipeline.audio.unusable import UnusableRecording

BUFFER_BYTES = 1 << 16


@dataclass(frozen=True)
class Source:
    """Which bytes, and which of their sound.

    Attributes:
        path: of a file.
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

    @property
    def is_plain(self) -> bool:
        """Whether all of the sound is meant, with no more promised than its container does."""
        return self.start is None and self.seconds is None and self.channel is None


def open_source(source: Source) -> tuple[BinaryIO, int]:
    """The bytes of a recording, and how many there are.

    Raises:
        UnusableRecording: they are not there.
    """
    file, size = _open(Path(source.path))
    if source.n_bytes is None:
        return file, size
    stop = source.first_byte + source.n_bytes
    if stop > size:
        file.close()
        raise UnusableRecording(f"its archive ends at byte {size}, before the recording does at {stop}")
    if not source.n_bytes:
        file.close()
        raise UnusableRecording("the file is empty (0 bytes)")
    return member(file, source.first_byte, stop), source.n_bytes


def member(file: BinaryIO, first: int, stop: int) -> BinaryIO:
    """The bytes [first, stop) of an open file as a file of their own, which closes the other with itself."""
    return io.BufferedReader(_Member(file, Segment(first, stop)), BUFFER_BYTES)


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
        reason = "the file is empty (0 bytes)"
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
