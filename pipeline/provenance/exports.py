"""Exports told apart: by what their files hold, wherever they lie."""

from pathlib import Path

from pipeline.plumbing.fingerprint import fingerprint
from pipeline.provenance.digests import digest_of

# As `pipeline.checkpoints.writing.checksums` writes it.
CHECKSUMS = "checksums.json"
CODEC = "codec"


def export_digest(export: Path) -> str:
    """What tells an export from every other: its weights, its configuration and its codec.

    Of a large export only the checksums are read that lie in it; one without them is read whole.

    Raises:
        FileNotFoundError: when there is none.
    """
    if not export.is_dir() or not (export / CHECKSUMS).is_file():
        return digest_of(export)
    parts = [export / CHECKSUMS, *([export / CODEC] if (export / CODEC).is_dir() else [])]
    return fingerprint([digest_of(part) for part in parts])


def size_of(folder: Path) -> int:
    """Bytes of all files of an export."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
