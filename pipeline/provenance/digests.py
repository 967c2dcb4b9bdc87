"""Digests of files and folders, by which one result is told from another."""

import hashlib
from pathlib import Path

from pipeline.plumbing.fingerprint import fingerprint


def digest_of(path: Path) -> str:
    """The SHA-256 of a file; of a folder, one digest of every file's name and content.

    Raises:
        FileNotFoundError: when there is nothing at `path`.
    """
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        return fingerprint({file.relative_to(path).as_posix(): digest_of(file) for file in files})
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; run the stage that writes it first.")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
