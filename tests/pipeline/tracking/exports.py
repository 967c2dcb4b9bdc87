"""Exports as far as the store looks at them: a codec, a configuration and weights that are none."""

from pathlib import Path

from pipeline.audio.codecs.storage import save_codec
from pipeline.provenance.identity import Identity, TrainingIdentity, identity_path, write_identity
from tests.speaking_export import noise_codec

TRAINING = TrainingIdentity("data", "codec", "settings", "configuration", "checkpoint", 256)


def write_export(folder: Path, weights: str) -> Path:
    folder.mkdir()
    save_codec(noise_codec(), folder / "codec")
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_text(weights)
    (folder / "checksums.json").write_text(f'{{"weights": "{weights}"}}')
    write_identity(identity_path(folder), Identity(TRAINING))
    return folder
