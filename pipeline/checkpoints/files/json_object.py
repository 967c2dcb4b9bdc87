"""JSON of strangers: an object without surprises, or an error that names the file."""

import json
from pathlib import Path
from typing import Any

from pipeline.checkpoints.stored_tensor import DamagedCheckpointError

# An index of a hundred thousand tensors has some ten megabytes.
MAX_BYTES = 256 * 2**20


def read_json_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        FileNotFoundError: when there is no such file.
        DamagedCheckpointError: when it is no JSON, no object, or names a key twice.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; the checkpoint is not complete: get the file again.")
    if path.stat().st_size > MAX_BYTES:
        raise DamagedCheckpointError(f"{path} is larger than {MAX_BYTES} bytes, which nothing of its kind is.")
    return parse_json_object(path.read_bytes(), path)


def parse_json_object(content: bytes, path: Path) -> dict[str, Any]:
    """The object that `content` of the file `path` tells.

    Raises:
        DamagedCheckpointError: when it is no JSON, no object, or names a key twice.
    """
    try:
        value = json.loads(content.decode("utf-8"), object_pairs_hook=_without_duplicates)
    # Too deep a nesting is a RecursionError.
    except (ValueError, RecursionError) as error:
        raise DamagedCheckpointError(f"{path} holds no valid JSON ({error}); get the file again.") from None
    if not isinstance(value, dict):
        raise DamagedCheckpointError(f"{path} holds a JSON {type(value).__name__}, not an object; get the file again.")
    return value


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"{key[:80]!r} is there twice")
        result[key] = value
    return result
