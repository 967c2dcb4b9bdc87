"""The index of a sharded checkpoint, opened without running what somebody may have hidden in it."""

import pickle
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint import filesystem, metadata

from lightning_modules.parallel.checkpoint_folder import METADATA_FILE

# All that a `.metadata` refers to by name, beside torch's types of numbers.
KNOWN = {
    (metadata.__name__, name)
    for name in (
        "BytesStorageMetadata",
        "ChunkStorageMetadata",
        "Metadata",
        "MetadataIndex",
        "StorageMeta",
        "TensorProperties",
        "TensorStorageMetadata",
        "_MEM_FORMAT_ENCODING",
    )
} | {
    (filesystem.__name__, "_StorageInfo"),
    ("torch", "Size"),
    ("torch.serialization", "_get_layout"),
}

# Lightning's hold their path as well, whose class has another name in what Python 3.13 writes, and in it alone.
PATHS = {("pathlib", "PosixPath"), ("pathlib._local", "PosixPath")}

# Of these, the objects that pickle sets the state of.
STATEFUL = (
    metadata.BytesStorageMetadata,
    metadata.ChunkStorageMetadata,
    metadata.Metadata,
    metadata.MetadataIndex,
    metadata.StorageMeta,
    metadata.TensorProperties,
    metadata.TensorStorageMetadata,
    filesystem._StorageInfo,
)


class SafeReader(dcp.FileSystemReader):
    """Reads a sharded checkpoint; its index may name nothing but what such an index is made of.

    Raises:
        ValueError: when the index is damaged, or names anything else.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        # At once: torch.distributed.checkpoint would go on without an index, and forget why.
        self._metadata = _read_index(path / METADATA_FILE)

    def read_metadata(self, *args: Any, **kwargs: Any) -> metadata.Metadata:
        """The index: which tensors there are, in which pieces, and where they lie."""
        return self._metadata


def _read_index(path: Path) -> metadata.Metadata:
    try:
        with path.open("rb") as file:
            content = _Unpickler(file).load()
    except OSError:
        raise
    # Bits that have flipped make an unpickler raise nearly anything: KeyError, TypeError, UnicodeDecodeError, …
    except Exception as error:
        raise ValueError(f"{path} is not the index of a sharded checkpoint ({error}).") from error
    if not isinstance(content, metadata.Metadata):
        raise ValueError(f"{path} is not the index of a sharded checkpoint.")
    return content


class _Unpickler(pickle._Unpickler):
    """In Python: the one in C makes room for as many objects as the file says there will be, and fills it."""

    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)

    def load_build(self) -> None:
        """Set the state of an object; of a class or function it would change what everybody else sees."""
        target = self.stack[-2]  # type: ignore[attr-defined]
        if type(target) not in STATEFUL:
            raise pickle.UnpicklingError(f"it changes {target!r}")
        super().load_build()  # type: ignore[misc]

    dispatch[pickle.BUILD[0]] = load_build

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in PATHS:
            return PurePosixPath
        if (module, name) in KNOWN or (module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it refers to {module}.{name}")
