"""How a checkpoint takes its place on disk: written beside, named when it is whole, and found again.

A sharded checkpoint is a folder: `.metadata` and `*.distcp`, which torch.distributed.checkpoint writes, and `meta.pt`
with all that is not sharded. Every rank writes to the same folder: the ranks of several machines need a shared file
system.
"""

import hashlib
import os
import shutil
from pathlib import Path

META_FILE = "meta.pt"
METADATA_FILE = ".metadata"
PARTIAL = ".partial"
REPLACED = ".replaced"
REMOVED = ".removed"
# Under which name `meta.pt` holds the digest of `.metadata`, which has no checksum of its own.
INDEX_DIGEST = "index_sha256"


def is_sharded(path: Path) -> bool:
    """Whether a whole sharded checkpoint lies at `path`."""
    return (path / METADATA_FILE).is_file() and (path / META_FILE).is_file()


def index_digest(path: Path) -> str:
    """The SHA-256 of a sharded checkpoint's index."""
    return hashlib.sha256((path / METADATA_FILE).read_bytes()).hexdigest()


def partial_path(path: Path) -> Path:
    """Where a checkpoint is written before it gets the name `path`."""
    return path.with_name(path.name + PARTIAL)


def commit(path: Path) -> None:
    """Give what lies at `partial_path(path)`, a file or a folder, the name `path`.

    One that had the name before is there until the new one can take its place. A folder cannot be replaced in one step:
    a process killed between the two renames leaves the old one as `*.replaced`, which `clean` puts back.
    """
    partial = partial_path(path)
    if partial.is_dir():
        _sync(partial)
    replaced = path.with_name(path.name + REPLACED)
    remove(replaced)
    if path.is_dir():
        os.replace(path, replaced)
    os.replace(partial, path)
    _sync(path.parent)
    remove(replaced)


def clean(folder: Path) -> None:
    """Remove what killed saves and removals have left in `folder`, and undo a replacement that was not finished."""
    for replaced in folder.glob("*" + REPLACED):
        path = replaced.with_name(replaced.name.removesuffix(REPLACED))
        if path.exists():
            remove(replaced)
        else:
            os.replace(replaced, path)
    for suffix in (PARTIAL, REMOVED):
        for left in folder.glob("*" + suffix):
            remove(left)


def remove(path: Path) -> None:
    """Delete a file or a folder, if it is there; a folder loses its name first: none is ever half there under it."""
    if path.is_dir() and not path.is_symlink():
        doomed = path.with_name(path.name + REMOVED)
        shutil.rmtree(doomed, ignore_errors=True)
        os.replace(path, doomed)
        shutil.rmtree(doomed)
    else:
        path.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
