"""Safetensors files, whose headers are checked by us before a byte of data is believed."""

from pathlib import Path

from pipeline.checkpoints.stored import StoredTensor


def open_safetensors(path: Path) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    """The tensors of a file, unread, by name, and its metadata.

    Raises:
        FileNotFoundError: when there is no such file.
        DamagedCheckpointError: when the header is damaged, or does not fit the file.
    """
    raise NotImplementedError
