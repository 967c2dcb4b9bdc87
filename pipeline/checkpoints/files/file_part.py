"""A part of a file that looks like a file."""

import io
from pathlib import Path
from typing import BinaryIO


class FilePart(io.RawIOBase):
    """`n_bytes` of an open file, from byte `start` on, to read and seek in; closing it closes the file."""

    def __init__(self, file: BinaryIO, start: int, n_bytes: int) -> None:
        super().__init__()
        self._file = file
        self._start = start
        self._n_bytes = n_bytes
        self._place = 0

    @classmethod
    def open(cls, path: Path, start: int, n_bytes: int) -> io.BufferedReader:
        """The part of the file at `path`, buffered."""
        return io.BufferedReader(cls(path.open("rb"), start, n_bytes))

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place counted from the part's start, from here, or from its end."""
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._n_bytes}[whence]
        if origin + offset < 0:
            raise OSError(f"byte {origin + offset} lies before the file")
        self._place = origin + offset
        return self._place

    def tell(self) -> int:
        """The place within the part."""
        return self._place

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Read up to the end of the part."""
        n_wanted = max(0, min(len(buffer), self._n_bytes - self._place))
        self._file.seek(self._start + self._place)
        content = self._file.read(n_wanted)
        buffer[: len(content)] = content
        self._place += len(content)
        return len(content)

    def close(self) -> None:
        """Close the file."""
        if not self.closed:
            self._file.close()
        super().close()
