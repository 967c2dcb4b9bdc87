"""One layout to another, tensor by tensor."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.checkpoints.quantisation import QuantisationError
from pipeline.checkpoints.stored import CheckpointSource
from pipeline.checkpoints.writing.plan import ConversionOptions

__all__ = ["Conversion", "ConversionOptions", "WrittenFile", "convert", "verify"]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class WrittenFile:
    """A file of the target: its name there, its size, and its SHA-256."""

    name: str
    n_bytes: int
    sha256: str


@dataclass(frozen=True)
class Conversion:
    """What a conversion has done.

    Attributes:
        layout: of the target.
        target: the file or folder.
        files: all that was written.
        renamed: (name in the source, name in the target) of every tensor that is called differently.
        dropped: published names of what was left out, as asked for.
        quantisation: by published name, how far the numbers moved of tensors that were rounded.
        n_tensors: in the target.
        n_bytes: of the target's files.
        resumed_files: how many of them a conversion before, which was killed, had already written.
        notes: what a user of the target has to know.
    """

    layout: str
    target: Path
    files: tuple[WrittenFile, ...]
    renamed: tuple[tuple[str, str], ...]
    dropped: tuple[str, ...]
    quantisation: Mapping[str, QuantisationError]
    n_tensors: int
    n_bytes: int
    resumed_files: int
    notes: tuple[str, ...] = ()


def convert(
    source: CheckpointSource,
    target: Path,
    layout: str,
    options: ConversionOptions,
    progress: Progress | None = None,
) -> Conversion:
    """Write a checkpoint in another layout.

    Args:
        source: what `open_checkpoint` found.
        target: the file or folder to write; one that is there is replaced when the new one is whole.
        layout: a name of `WRITERS`.
        options: types, sizes, and what to leave out.
        progress: called with (file, bytes written, bytes in all) as the conversion goes on.

    Raises:
        ValueError: when the layout cannot hold what the source has; nothing is written then.
        DamagedCheckpointError: when the source turns out damaged on the way; nothing is left then.
    """
    raise NotImplementedError


def verify(target: Path) -> None:
    """Read all files of a target again, and hold them against their checksums.

    Raises:
        DamagedCheckpointError: naming the file that is absent or has changed.
    """
    raise NotImplementedError
