"""The layouts by name, and which of them lies at a path."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from lightning_modules.model.configuration import DecoderConfig
from pipeline.checkpoints.architecture_match import OpenOptions
from pipeline.checkpoints.layouts import deepseek, distributed, huggingface, legacy, lightning
from pipeline.checkpoints.stored_tensor import CheckpointSource
from pipeline.checkpoints.writing.plan import ConversionOptions, Plan


class Reader(Protocol):
    """A module that reads a layout: its name, what it looks for in words, and how it is opened."""

    NAME: str
    LOOKS_FOR: str

    def recognises(self, path: Path) -> bool:
        """Whether the layout lies at `path`, damaged perhaps."""

    def open_source(self, path: Path, options: OpenOptions) -> CheckpointSource:
        """Open it; tensors stay on the disk."""

    def names(self, config: DecoderConfig) -> Mapping[str, str]:
        """What the layout calls tensors, by their published names, where it is something else."""


class Writer(Protocol):
    """A module that writes a layout."""

    def plan(self, source: CheckpointSource, options: ConversionOptions) -> Plan:
        """Plan the files; raises a `ValueError` when the layout cannot hold the source."""


# In the order in which a path is held against them; the last takes any file, and says what is wrong with it.
LAYOUTS: Mapping[str, Reader] = {
    module.NAME: module for module in (distributed, huggingface, deepseek, lightning, legacy)
}
WRITERS: Mapping[str, Writer] = {module.NAME: module for module in (lightning, distributed, huggingface, deepseek)}


def detect_layout(path: Path) -> str:
    """The name of the layout that lies at `path`.

    Raises:
        FileNotFoundError: when there is nothing.
        ValueError: when no layout recognises it; tells what each looks for.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; give the checkpoint's file or folder.")
    for name, layout in LAYOUTS.items():
        if layout.recognises(path):
            return name
    looked_for = "; ".join(f"{name}: {layout.LOOKS_FOR}" for name, layout in LAYOUTS.items())
    raise ValueError(f"{path} is no checkpoint of a known layout ({looked_for}); name its layout, or its file.")


def open_checkpoint(path: Path, layout: str | None = None, options: OpenOptions | None = None) -> CheckpointSource:
    """Open a checkpoint of any layout; tensors stay on the disk.

    Args:
        path: a file or folder.
        layout: its name in `LAYOUTS`; None: `detect_layout`.
        options: what may be missing; None: nothing but statistics.

    Raises:
        FileNotFoundError, ValueError, DamagedCheckpointError: when it is absent, unknown, incomplete or damaged.
    """
    name = detect_layout(path) if layout is None else layout
    if name not in LAYOUTS:
        raise ValueError(f"layout is '{name}'; choose one of {', '.join(LAYOUTS)}.")
    return LAYOUTS[name].open_source(path, options or OpenOptions())
