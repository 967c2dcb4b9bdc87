"""A codec as two files: codec.json with its kind and settings, codec.safetensors with its tensors."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from pipeline.audio.codecs.codec import Codec
from pipeline.audio.codecs.registry import codec_class
from pipeline.plumbing.files import atomic_write, read_json, write_json

FORMAT_VERSION = 1
SETTINGS_FILE = "codec.json"
TENSORS_FILE = "codec.safetensors"


def save_codec(codec: Codec, folder: Path | str) -> None:
    """Write the codec into `folder`; the two files are all that `load_codec` needs."""
    fields, tensors = codec.state()
    with atomic_write(Path(folder, TENSORS_FILE)) as temporary:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, temporary)
    write_json(Path(folder, SETTINGS_FILE), {"format_version": FORMAT_VERSION, **fields})


def load_codec(folder: Path | str) -> Codec:
    """Read a codec that `save_codec` wrote.

    Raises:
        FileNotFoundError: one of the files is missing.
        ValueError: a field or tensor is missing, unknown or invalid; the message names the file and what is wrong.
    """
    settings_path, tensors_path = Path(folder, SETTINGS_FILE), Path(folder, TENSORS_FILE)
    fields = read_json(settings_path)
    if not isinstance(fields, dict) or fields.get("format_version") != FORMAT_VERSION:
        found = fields.get("format_version") if isinstance(fields, dict) else None
        raise ValueError(
            f"{settings_path}: `format_version` is {found!r}, and this version of Melisma reads {FORMAT_VERSION}; "
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
        return codec_class(fields.get("kind")).restore(fields, tensors)
    except ValueError as error:
        raise ValueError(f"{settings_path} and {TENSORS_FILE} do not describe a codec: {error}") from error
