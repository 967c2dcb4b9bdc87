"""The zip archives that torch.save writes, checked before torch opens them.

Torch believes an archive: it holds no record against its CRC-32, and where the pickle says how many bytes a tensor has,
it takes them from the file, whatever they are. What is checked here is what it relies on.
"""

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from pipeline.checkpoints.files.pickle_scan import check_expansion
from pipeline.checkpoints.stored_tensor import DamagedCheckpointError

LOCAL_HEADER = struct.Struct("<4s5H3I2H")
LOCAL_SIGNATURE = b"PK\x03\x04"
CHUNK_BYTES = 4 * 2**20
# The pickle tells names and shapes; numbers are records of their own.
MAX_PICKLE_BYTES = 2**30
MAX_ALIGNMENT = 2**20


def is_archive(path: Path) -> bool:
    """Whether a file begins as an archive; those older than torch 1.6 do not."""
    with path.open("rb") as file:
        return file.read(4) == LOCAL_SIGNATURE


def check_archive(file: IO[bytes], n_bytes: int, label: str) -> dict[int, int]:
    """Check an archive's structure and its small records.

    Args:
        file: the archive.
        n_bytes: its size.
        label: what it is called in messages.

    Returns:
        Where in the archive the numbers of each record begin, and how many bytes they are.

    Raises:
        DamagedCheckpointError: when records are compressed, overlap, are there twice or reach beyond the file, when one
            that torch relies on is damaged, or when the numbers are those of a big-endian machine.
    """
    with _clear_errors(label), zipfile.ZipFile(file) as archive:
        records = archive.infolist()
        if len({record.filename for record in records}) != len(records):
            raise DamagedCheckpointError(f"{label} holds a record twice; get the file again.")
        folders = {record.filename.partition("/")[0] for record in records}
        if len(folders) != 1:
            raise DamagedCheckpointError(f"{label} is an archive, but not one that torch.save wrote.")
        spans, numbers = [], {}
        for record in records:
            name = record.filename.partition("/")[2]
            start = _data_start(file, record, label)
            spans.append((record.header_offset, start + record.file_size, record.filename))
            if re.fullmatch(r"data/\d+", name):
                numbers[start] = record.file_size
            elif name in ("data.pkl", "byteorder", "version", ".format_version", ".storage_alignment"):
                _check_small_record(name, archive, record, label)
        _check_spans(spans, n_bytes, label)
        if f"{folders.pop()}/data.pkl" not in archive.namelist():
            raise DamagedCheckpointError(
                f"{label} is an archive, but not one that torch.save wrote: it lacks data.pkl."
            )
    return numbers


def check_sums(file: IO[bytes], label: str) -> None:
    """Read a whole archive, and hold every record against its CRC-32.

    Raises:
        DamagedCheckpointError: naming the record that changed.
    """
    with _clear_errors(label), zipfile.ZipFile(file) as archive:
        for record in archive.infolist():
            start = _data_start(file, record, label)
            file.seek(start)
            if _checksum(file, record.file_size) != record.CRC:
                raise _changed(record.filename, label)


def _check_small_record(name: str, archive: zipfile.ZipFile, record: zipfile.ZipInfo, label: str) -> None:
    if record.file_size > MAX_PICKLE_BYTES:
        raise DamagedCheckpointError(f"{label}: {record.filename} has {record.file_size} bytes, which is absurd.")
    content = archive.open(record).read()
    if name == "data.pkl":
        check_expansion(io.BytesIO(content), 1, label)
    if name == "byteorder" and content != b"little":
        raise DamagedCheckpointError(f"{label} says that its byte order is {content[:16]!r}; only 'little' is read.")
    # Torch divides by it.
    if name == ".storage_alignment" and not (content.isdigit() and 0 < int(content[:9]) <= MAX_ALIGNMENT):
        raise DamagedCheckpointError(f"{label} aligns storages to {content[:16]!r} bytes, which is absurd.")


def _data_start(file: IO[bytes], record: zipfile.ZipInfo, label: str) -> int:
    """Where a record's bytes begin: behind a header of its own, which has to agree with the archive's directory."""
    if record.compress_type != zipfile.ZIP_STORED or record.compress_size != record.file_size or record.flag_bits & 1:
        raise DamagedCheckpointError(
            f"{label}: {record.filename} is compressed or encrypted, as torch never writes it."
        )
    file.seek(record.header_offset)
    signature, *_, n_name, n_extra = LOCAL_HEADER.unpack(file.read(LOCAL_HEADER.size))
    name = file.read(n_name)
    if signature != LOCAL_SIGNATURE or name != record.orig_filename.encode():
        raise DamagedCheckpointError(f"{label}: {record.filename} is not where the archive's directory says.")
    return record.header_offset + LOCAL_HEADER.size + n_name + n_extra


def _check_spans(spans: list[tuple[int, int, str]], n_bytes: int, label: str) -> None:
    place = 0
    for begin, end, name in sorted(spans):
        if begin < place or end > n_bytes:
            raise DamagedCheckpointError(f"{label}: {name} overlaps another record, or reaches beyond the file.")
        place = end


def _checksum(file: IO[bytes], n_bytes: int) -> int:
    checksum = 0
    while n_bytes > 0:
        chunk = file.read(min(CHUNK_BYTES, n_bytes))
        if not chunk:
            break
        checksum = zlib.crc32(chunk, checksum)
        n_bytes -= len(chunk)
    return checksum


def _changed(record: str, label: str) -> DamagedCheckpointError:
    return DamagedCheckpointError(
        f"{label}: {record} does not have the CRC-32 that it was written with: bits have flipped, or torch.save was "
        "told not to compute any; get the file again, or load and save it once more."
    )


@contextmanager
def _clear_errors(label: str) -> Iterator[None]:
    """Whatever zipfile makes of a damaged archive, as one error that names it."""
    try:
        yield
    except DamagedCheckpointError:
        raise
    except zipfile.BadZipFile as error:
        record = re.search(r"Bad CRC-32 for file '(.+)'", str(error))
        if record:
            raise _changed(record[1], label) from None
        raise DamagedCheckpointError(f"{label} is no whole archive ({error}); get the file again.") from None
    # A mutated directory makes zipfile raise nearly anything: struct.error, NotImplementedError, OSError, …
    except Exception as error:
        raise DamagedCheckpointError(f"{label} is a damaged archive ({error}); get the file again.") from None
