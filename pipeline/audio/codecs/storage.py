"""A codec as two files: codec.json with its kind and settings, codec.safetensors with its tensors.

codec.json also holds the SHA-256 of the other file and, under `checksum`, of all that itself says: a flipped bit in
either would otherwise be heard and not be seen.
"""

import hashlib
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from pipeline.audio.codecs.codec import Codec
from pipeline.audio.codecs.registry import codec_class
from pipeline.plumbing.files import atomic_write, read_json, write_json
from pipeline.plumbing.fingerprint import fingerprint

# Version 1, of earlier exports, has no checksums.
FORMAT_VERSION = 2
READABLE = (1, 2)
REMEDY = "prepare the data again, or take the export anew from where it came"
SETTINGS_FILE = "codec.json"
TENSORS_FILE = "codec.safetensors"


def save_codec(codec: Codec, folder: Path | str) -> None:
    """Write the codec into `folder`; the two files are all that `load_codec` needs."""
    fields, tensors = codec.state()
    with atomic_write(Path(folder, TENSORS_FILE)) as temporary:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, temporary)
    written = {"format_version": FORMAT_VERSION, **fields, "tensors_sha256": _sha256(Path(folder, TENSORS_FILE))}
    # As JSON has them: a tuple comes back as a list.
    write_json(Path(folder, SETTINGS_FILE), {**written, "checksum": fingerprint(written)})


def load_codec(folder: Path | str) -> Codec:
    """Read a codec that `save_codec` wrote.

    Raises:
        FileNotFoundError: one of the files is missing.
        ValueError: a field or tensor is missing, unknown or invalid; the message names the file and what is wrong.
    """
    settings_path, tensors_path = Path(folder, SETTINGS_FILE), Path(folder, TENSORS_FILE)
    fields = read_json(settings_path)
    if not isinstance(fields, dict) or fields.get("format_version") not in READABLE:
        found = fields.get("format_version") if isinstance(fields, dict) else None
        raise ValueError(
            f"{settings_path}: `format_version` is {found!r}, and this version of Melisma reads {READABLE}; "
            "prepare the data again."
        )
    if not isinstance(fields.get("config"), dict):
        raise ValueError(f"{settings_path}: the field `config` is missing; prepare the data again.")
    if not tensors_path.is_file():
        raise FileNotFoundError(f"{tensors_path} does not exist; it belongs beside {SETTINGS_FILE}.")
    try:
        tensors = load_file(tensors_path)
    except SafetensorError as error:
        raise ValueError(f"{tensors_path} is not a safetensors file ({error}); prepare the data again.") from None
    try:
        codec: Codec = codec_class(fields.get("kind")).restore(fields, tensors)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{settings_path} and {TENSORS_FILE} do not describe a codec: {error}") from error
    # Last, because what is wrong by its value is better named than "changed".
    _verify(fields, settings_path, tensors_path)
    return codec


def _verify(fields: dict[str, Any], settings_path: Path, tensors_path: Path) -> None:
    """Compare both files with their checksums.

    Raises:
        ValueError: naming the file that has changed.
    """
    if fields["format_version"] == 1:
        return
    if fingerprint({name: value for name, value in fields.items() if name != "checksum"}) != fields.get("checksum"):
        raise ValueError(f"{settings_path} has changed since it was written (its checksum differs); {REMEDY}.")
    if _sha256(tensors_path) != fields.get("tensors_sha256"):
        raise ValueError(f"{tensors_path} has changed since it was written (its SHA-256 differs); {REMEDY}.")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
