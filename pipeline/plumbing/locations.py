"""Files by path or by URL: on a disk, or wherever fsspec reaches (s3://, gs://, https://, memory://, …)."""

import errno
import glob
import io
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO, cast
from urllib.parse import unquote, urlsplit

from pipeline.plumbing.redaction import redacted

_SCHEME = re.compile(r"([a-z][a-z0-9+.\-]+)://", re.IGNORECASE)
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
# What is fetched at once of a file of which only parts are read.
BLOCK_BYTES = 1 << 20
_S3 = ("s3", "s3a")
_CREDENTIALS = (
    "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_ENDPOINT_URL for another server than "
    "Amazon's), or FSSPEC_S3_ANON=true for a public bucket"
)
# What is written here may find no room.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "TokenRetrievalError")


class UnreachableError(ConnectionError):
    """No file of a kind can be reached, so that it is not this one's fault: no network, no credentials, no package."""


class LackingError(UnreachableError):
    """Credentials or a package are lacking: trying again does not help."""


def scheme_of(location: str) -> str:
    """The scheme of a URL, as `s3`; empty for a path, which `file://` leads to as well."""
    match = _SCHEME.match(location)
    scheme = match[1].lower() if match else ""
    return "" if scheme == "file" else scheme


def normalised(location: str) -> str:
    """A URL as it is; a path as an absolute one without `~`, `.` and `..`."""
    if scheme_of(location):
        return location
    if location.lower().startswith("file://"):
        location = unquote(urlsplit(location).path)
    return os.path.abspath(os.path.expanduser(location))


def folder_of(location: str) -> str:
    """The folder that a normalised location lies in."""
    if not scheme_of(location):
        return os.path.dirname(location)
    return re.split(r"[?#]", location, maxsplit=1)[0].rpartition("/")[0]


def beside(folder: str, name: str) -> str:
    """The normalised location of a name that is relative to a normalised folder, unless it is absolute."""
    if scheme_of(name) or name.lower().startswith("file://"):
        return normalised(name)
    if not scheme_of(folder) or os.path.isabs(name):
        return os.path.normpath(os.path.join(folder, name))
    scheme, _, rest = folder.partition("://")
    server, _, path = rest.partition("/")
    return f"{scheme}://{server}{os.path.normpath(os.path.join('/', path, name))}"


def expanded(patterns: str | Sequence[str]) -> list[str]:
    """The normalised locations of patterns: `{000..009}` and `{a,b}` spell names out, `*` and `?` find files.

    Raises:
        OSError: a pattern finds nothing, or a place cannot be listed.
    """
    spelt = [name for one in ([patterns] if isinstance(patterns, str) else patterns) for name in _spelt_out(one)]
    return [location for name in spelt for location in _found(normalised(name))]


def file_system(location: str) -> Any:
    """The fsspec file system of a URL.

    Raises:
        OSError: in one sentence.
    """
    from fsspec.core import url_to_fs

    with plainly(location):
        return url_to_fs(location)[0]


def exists(location: str) -> bool:
    """Whether there is such a file or folder.

    Raises:
        OSError: nobody can tell.
    """
    if not scheme_of(location):
        return os.path.exists(location)
    with plainly(location):
        return bool(file_system(location).exists(location))


def size_of(location: str) -> int:
    """The bytes of a file.

    Raises:
        OSError: it cannot be reached.
    """
    if not scheme_of(location):
        return os.stat(location).st_size
    with plainly(location):
        size = file_system(location).size(location)
        if size is None:
            raise OSError("the server does not tell its length")
        return int(size)


def fetched(location: str, first: int, stop: int) -> bytes:
    """The bytes [first, stop) of a URL, in one request.

    Raises:
        OSError: in one sentence.
    """
    with plainly(location):
        return bytes(file_system(location).cat_file(location, start=first, end=stop))


def opened(location: str) -> BinaryIO:
    """A file of which parts are read, in blocks.

    Raises:
        OSError: it cannot be reached.
    """
    if not scheme_of(location):
        return open(location, "rb")  # noqa: SIM115 - the caller closes it
    with plainly(location):
        return cast(BinaryIO, _Elsewhere(file_system(location).open(location, "rb", block_size=BLOCK_BYTES), location))


def decompressed(location: str) -> BinaryIO:
    """A file to be read from its beginning on, decompressed as its name tells (.gz, .bz2, .xz, .zst).

    Raises:
        OSError: it cannot be reached.
    """
    from fsspec.compression import compr
    from fsspec.utils import infer_compression

    kind = infer_compression(re.split(r"[?#]", location, maxsplit=1)[0] if scheme_of(location) else location)
    if kind is not None and kind not in compr:
        raise OSError(f"{redacted(location)} is compressed in a way that is not read here; compress it with gzip.")
    file = opened(location)
    return file if kind is None else cast(BinaryIO, compr[kind](file, mode="rb"))


class _Elsewhere(io.RawIOBase):
    """A file of fsspec whose errors are told plainly, whenever they come."""

    def __init__(self, file: Any, location: str) -> None:
        self._file, self._location = file, location

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return int(self._file.tell())

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return int(self._file.seek(offset, whence))

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]
        with plainly(self._location):
            content = self._file.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        self._file.close()
        super().close()


@contextmanager
def plainly(location: str) -> Iterator[None]:
    """Tell in one sentence, and without secrets, why a URL cannot be read."""
    try:
        yield
    except UnreachableError:
        raise
    except Exception as error:
        shown, scheme = redacted(location), scheme_of(location)
        remedy = f"; {_CREDENTIALS}" if scheme in _S3 else ""
        # fsspec says of a server that does not answer that its file is not there.
        cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
        if isinstance(cause, OSError) and cause.errno in _FULL:
            raise cause from None
        if isinstance(cause, FileNotFoundError):
            raise FileNotFoundError(f"{shown} does not exist.") from None
        if isinstance(cause, PermissionError):
            raise PermissionError(f"{shown} may not be read with these credentials{remedy}.") from None
        if type(cause).__name__ in _NO_CREDENTIALS:
            raise LackingError(f"{shown} is not read without credentials{remedy}.") from None
        said = redacted(" ".join(str(cause).split())).rstrip(".")
        if isinstance(cause, ImportError):
            install = f"install what reads {scheme}:// with `make cluster`" if scheme in _S3 else said
            raise LackingError(f"{shown} cannot be read: {install}.") from None
        raise UnreachableError(f"{shown} cannot be reached ({type(cause).__name__}: {said}).") from None


def _spelt_out(pattern: str) -> Iterator[str]:
    match = _BRACES.search(pattern)
    if match is None:
        yield pattern
        return
    numbers = _RANGE.fullmatch(match[1])
    names = match[1].split(",")
    if numbers is not None:
        names = [str(n).zfill(len(numbers[1])) for n in range(int(numbers[1]), int(numbers[2]) + 1)]
    for name in names:
        yield from _spelt_out(pattern[: match.start()] + name + pattern[match.end() :])


def _found(location: str) -> list[str]:
    """The files of a pattern with wildcards, sorted; a location without any, as it is."""
    if not glob.has_magic(location) or (not scheme_of(location) and os.path.exists(location)):
        return [location]
    if not scheme_of(location):
        found = sorted(glob.glob(location))
    elif "?" in location and scheme_of(location).startswith("http"):
        return [location]
    else:
        with plainly(location):
            files = file_system(location)
            found = sorted(files.unstrip_protocol(name) for name in files.glob(location))
    if not found:
        raise FileNotFoundError(f"no file is named {redacted(location)}.")
    return found
