"""What lies beside every export: the size and SHA-256 of each of its files."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from pipeline.checkpoints.stored_tensor import DamagedCheckpointError
from pipeline.checkpoints.writing.read_ahead import read_ahead
from pipeline.plumbing.files import read_json, write_json

CHECKSUMS_FILE = "checksums.json"


@dataclass(frozen=True)
class Checksum:
    """Of a file."""

    n_bytes: int
    sha256: str


def checksum(path: Path) -> Checksum:
    """Read a file, and sum it up."""
    with path.open("rb") as file:
        return Checksum(path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


def checksums_path(target: Path) -> Path:
    """Where the checksums of an export lie: in the folder, or beside the single file."""
    return target / CHECKSUMS_FILE if target.is_dir() else target.with_name(f"{target.name}.{CHECKSUMS_FILE}")


def write_checksums(path: Path, files: Mapping[str, Checksum]) -> None:
    """Write checksums by the names of the files."""
    write_json(path, {name: asdict(summed) for name, summed in files.items()})


def verify(target: Path) -> None:
    """Read all files of an export again, and hold them against their checksums.

    Raises:
        FileNotFoundError: when it has no checksums.
        DamagedCheckpointError: naming the file that is absent or has changed.
    """
    path = checksums_path(target)
    folder = target if target.is_dir() else target.parent
    expected = _read(path)
    for name in expected:
        if not (folder / name).is_file():
            raise DamagedCheckpointError(f"{folder / name} is absent, but {path} lists it; convert again.")
    found = read_ahead(partial(checksum, folder / name) for name in expected)
    for name, summed in zip(expected, found, strict=True):
        if summed != expected[name]:
            raise DamagedCheckpointError(f"{folder / name} has changed since it was written; convert again.")


def _read(path: Path) -> dict[str, Checksum]:
    try:
        checksums = {str(name): Checksum(**summed) for name, summed in read_json(path).items()}
    except (TypeError, AttributeError) as error:
        raise DamagedCheckpointError(f"{path} is no list of checksums ({error}); convert again.") from error
    for name in checksums:
        if Path(name).name != name:
            raise DamagedCheckpointError(f"{path} lists {name!r}, which is not a file of its folder.")
    return checksums
