"""Folders of safetensors: one file, or shards with an index as `transformers` writes them."""

from pathlib import Path

from pipeline.checkpoints.stored import StoredTensor

INDEX_FILE = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"


def open_sharded(folder: Path) -> dict[str, StoredTensor]:
    """The tensors of all shards, unread, by name.

    Raises:
        FileNotFoundError: when there is neither an index nor a single file, or a shard is absent.
        DamagedCheckpointError: when the index is damaged, leads out of the folder, or disagrees with the shards.
    """
    raise NotImplementedError
