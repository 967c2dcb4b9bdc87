"""The `model` group of the configuration, read and checked. Light enough to run at every composition."""

from collections.abc import Mapping
from typing import Any

from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.model.objective import ObjectiveConfig
from pipeline.configuration.settings import read_settings
from pipeline.tokens.special import vocabulary_size


def read_model(model: Mapping[str, Any], vocabulary_size: int) -> tuple[DecoderConfig, ObjectiveConfig]:
    """The architecture and the objective that the `model` group describes, for tokens of this vocabulary.

    Raises:
        ValueError: naming the key that cannot be, and the remedy.
    """
    architecture = dict(model)
    objective = read_settings(ObjectiveConfig, architecture.pop("objective", {}), "model.objective")
    if architecture.get("vocab_size") is None:
        architecture["vocab_size"] = vocabulary_size
    decoder = read_settings(DecoderConfig, architecture, "model")
    if decoder.vocab_size < vocabulary_size:
        raise ValueError(
            f"model.vocab_size is {decoder.vocab_size}, but the codec's tokens need {vocabulary_size}; "
            "raise it, or set it to null to follow the tokens."
        )
    return decoder, objective


def check_model(values: Mapping[str, Any]) -> None:
    """Check the `model` group of a composed configuration, against the codec's vocabulary where its settings tell it.

    Raises:
        ValueError: as `read_model` does.
    """
    codec, n_tokens = values["codec"], 1
    if values["model"].get("vocab_size") is not None and "codebook_size" in codec:
        n_tokens = vocabulary_size(codec.get("n_codebooks", 1), codec["codebook_size"])
    decoder, objective = read_model(values["model"], n_tokens)
    objective.check_depth(decoder.num_nextn_predict_layers)
    decoder.check_router_learns()
