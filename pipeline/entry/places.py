"""Whether a command may write where it will, known before it works for hours."""

import os
from pathlib import Path


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
