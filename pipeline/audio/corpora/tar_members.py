"""Where the members of a tar archive lie, found without unpacking it; on a disk or elsewhere.

With Python's own `tarfile`: the libraries that read WebDataset and Shar stream archives from their beginning, and do
not tell where a member lies.
"""

import io
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import BinaryIO

from tqdm import tqdm

from pipeline.plumbing.locations import opened
from pipeline.plumbing.names import as_utf8
from pipeline.plumbing.redaction import redacted

# Members that describe others are read at once; larger ones describe nothing.
DESCRIPTIONS = (".json", ".txt")
LARGEST_DESCRIPTION = 1 << 20
# Archives that are looked through side by side: what lies elsewhere is waited for.
SIDE_BY_SIDE = 8
_HEADER_BYTES = 512
_COMPRESSED = {b"\x1f\x8b": "gzip -d", b"BZ": "bzip2 -d", b"\xfd7": "xz -d", b"(\xb5": "zstd -d"}


@dataclass(frozen=True)
class Member:
    """A file within an archive.

    Attributes:
        name: its path there.
        first_byte: where in the archive it begins.
        n_bytes: its length.
        content: of a small file that describes others; empty for all else.
        whole: whether the archive holds all of it.
    """

    name: str
    first_byte: int
    n_bytes: int
    content: bytes = b""
    whole: bool = True


@dataclass(frozen=True)
class Archive:
    """What an archive holds.

    Attributes:
        location: where it lies.
        members: its regular files up to its end or first fault.
        fault: what it does not hold; empty where nothing is missing.
        doubt: why it may lack something; empty where nothing is odd.
    """

    location: str
    members: Sequence[Member]
    fault: str = ""
    doubt: str = ""


def read_archives(locations: Sequence[str]) -> Iterator[Archive]:
    """Yield one archive after another, a few of them in memory.

    Raises:
        OSError: one cannot be reached.
        ValueError: one is no tar archive that can be read in place.
    """
    with (
        ThreadPoolExecutor(SIDE_BY_SIDE) as pool,
        tqdm(total=len(locations), desc="listing", unit="archive", disable=len(locations) < 2) as bar,
    ):
        for start in range(0, len(locations), SIDE_BY_SIDE):
            for archive in pool.map(read_archive, locations[start : start + SIDE_BY_SIDE]):
                bar.update()
                yield archive


def read_archive(location: str) -> Archive:
    """What an archive holds.

    Raises:
        OSError: it cannot be reached.
        ValueError: it is no tar archive that can be read in place.
    """
    with opened(location) as file:
        head = file.read(2)
        if head in _COMPRESSED:
            raise ValueError(
                f"{redacted(location)} is compressed, so that no recording in it can be read without all before it; "
                f"decompress it with `{_COMPRESSED[head]}`."
            )
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        try:
            # Old archives have names in other encodings than UTF-8, which then hold surrogates.
            with tarfile.open(fileobj=file, mode="r:", encoding="utf-8", errors="surrogateescape") as tar:
                members, fault, doubt = _read_members(tar, file, size)
        except tarfile.ReadError as error:
            raise ValueError(f"{redacted(location)} is no tar archive ({error}).") from None
    return Archive(location, members, fault, doubt)


def _read_members(tar: tarfile.TarFile, file: BinaryIO, size: int) -> tuple[list[Member], str, str]:
    """The regular files up to the end of an archive or its first fault; that, and what makes it doubtful."""
    members: list[Member] = []
    try:
        while (header := tar.next()) is not None:
            # It would keep all of them.
            tar.members.clear()  # type: ignore[attr-defined]
            if header.isreg() and not header.issparse():
                members.append(_member(header, file, size))
    except tarfile.ReadError as error:
        if not members:
            raise
        return members, f"ends within {members[-1].name}" if not members[-1].whole else f"is damaged: {error}", ""
    file.seek(tar.offset)
    block = file.read(_HEADER_BYTES)
    if not block:
        return members, "", "its archive has no end mark and may have been cut off"
    if len(block) < _HEADER_BYTES or any(block):
        return members, f"is damaged at byte {tar.offset}, and what lies behind is lost", ""
    return members, "", ""


def _member(header: tarfile.TarInfo, file: BinaryIO, size: int) -> Member:
    whole = header.offset_data + header.size <= size
    content = b""
    if whole and header.name.lower().endswith(DESCRIPTIONS) and header.size <= LARGEST_DESCRIPTION:
        file.seek(header.offset_data)
        content = file.read(header.size)
    return Member(as_utf8(header.name), header.offset_data, header.size, content, whole)
