"""What reading and writing are asked for by the `conversion` group of the configuration."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_modules.model.configuration import DecoderConfig
from pipeline.checkpoints.architecture_match import OpenOptions
from pipeline.checkpoints.writing.plan import ConversionOptions
from pipeline.configuration.model import read_model
from pipeline.conversion.configuration import ConversionSettings
from pipeline.tokens.dataset import TokenDataset
from pipeline.tokens.vocabulary import Special

GIB = 2**30
SPECIAL_TOKENS = {"bos_token_id": int(Special.BOS), "eos_token_id": int(Special.EOS), "pad_token_id": int(Special.PAD)}


def conversion_options(settings: ConversionSettings) -> ConversionOptions:
    """What the writer is asked for."""
    return ConversionOptions(
        settings.dtype,
        max(1, round(settings.shard_gib * GIB)),
        settings.n_model_parallel,
        settings.drop,
        SPECIAL_TOKENS,
    )


def open_options(settings: ConversionSettings, config: DecoderConfig | None, seed: int) -> OpenOptions:
    """How the source is opened, with the architecture for files that do not tell theirs."""
    return OpenOptions(config, settings.rename_legacy, settings.allow_missing, seed, settings.drop, settings.weights)


def composed_architecture(values: Mapping[str, Any], prepared: Path) -> DecoderConfig | None:
    """The architecture that the `model` group describes; None when its vocabulary follows tokens that there are not."""
    vocabulary_size = 1
    if values["model"]["vocab_size"] is None:
        try:
            vocabulary_size = TokenDataset.open(prepared / "test").vocabulary.size
        except FileNotFoundError:
            return None
    return read_model(values["model"], vocabulary_size)[0]
