"""Experiments as Hydra composes them of conf/."""

from collections.abc import Mapping, Sequence
from typing import Any

import hydra

from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.model.objective import ObjectiveConfig
from pipeline.configuration.composed import CONF, plain
from pipeline.configuration.model import read_model
from pipeline.tokens.special import vocabulary_size


def compose(overrides: Sequence[str]) -> dict[str, Any]:
    """The default experiment with `overrides`."""
    with hydra.initialize_config_dir(str(CONF), version_base=None):
        return plain(hydra.compose("config", list(overrides)))


def read_decoder(values: Mapping[str, Any]) -> tuple[DecoderConfig, ObjectiveConfig]:
    """The decoder, with the vocabulary that the codec's tokens would need where the preset leaves it open.

    Raises:
        ValueError: naming the setting that cannot be.
    """
    codec = values["codec"]
    return read_model(values["model"], vocabulary_size(codec["n_codebooks"], codec["codebook_size"]))
