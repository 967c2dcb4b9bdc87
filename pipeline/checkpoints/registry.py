"""The layouts by name, and which of them lies at a path."""

from pathlib import Path

from pipeline.checkpoints.opening import OpenOptions
from pipeline.checkpoints.stored import CheckpointSource


def detect_layout(path: Path) -> str:
    """The name of the layout that lies at `path`.

    Raises:
        FileNotFoundError: when there is nothing.
        ValueError: when no layout recognises it; tells what each looks for.
    """
    raise NotImplementedError


def open_checkpoint(path: Path, layout: str | None = None, options: OpenOptions | None = None) -> CheckpointSource:
    """Open a checkpoint of any layout; tensors stay on the disk.

    Args:
        path: a file or folder.
        layout: its name in `LAYOUTS`; None: `detect_layout`.
        options: what may be missing; None: nothing but statistics.

    Raises:
        FileNotFoundError, ValueError, DamagedCheckpointError: when it is absent, unknown, incomplete or damaged.
    """
    raise NotImplementedError
