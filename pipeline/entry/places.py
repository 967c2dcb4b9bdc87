"""Where a command reads and writes, and whether it may, known before it works for hours."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path

log = logging.getLogger(__name__)


def say_where_paths_start(paths: Mapping[str, str], repository: Path) -> None:
    """Say so where relative paths do not start at the repository's root, but in a folder of it: hardly on purpose."""
    is_relative = any(not Path(paths[name]).is_absolute() for name in ("prepared", "outputs"))
    if is_relative and repository in Path.cwd().parents:
        log.warning("Relative paths start here, in %s, and not at the repository's root, %s.", Path.cwd(), repository)


def require_writable(key: str, folder: Path) -> None:
    """Refuse a folder that cannot be written to, or made.

    Raises:
        ValueError: naming the key, and what stands in the way.
    """
    nearest = folder.absolute()
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir():
        raise ValueError(f"{key} is {folder}, but {nearest} is not a folder; choose another place.")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise ValueError(f"{key} is {folder}, but {nearest} may not be written to; choose another place.")
