"""Examine the configured model beside the presets that build the paper's and the card's."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.architecture.compliance import compliance_report
from pipeline.architecture.subject import Subject
from pipeline.configuration.composed import preset
from pipeline.configuration.model import read_model
from pipeline.plumbing.files import read_json
from pipeline.tokens.budget import token_budgets
from pipeline.tokens.shards import INDEX_NAME
from pipeline.tokens.vocabulary import Vocabulary

PAPER_PRESET = "deepseek_v3"
CARD_PRESET = "card"


def examine(values: Mapping[str, Any], prepared: Path) -> dict[str, Any]:
    """The compliance report of the configured model, with token budgets for the configured data.

    Args:
        values: the composed configuration, as plain nested mappings.
        prepared: where the prepared data lie, if they do.

    Raises:
        ValueError: the model's configuration is invalid, or its vocabulary unknown.
    """
    index = prepared / "train" / INDEX_NAME
    prepared_index = read_json(index) if index.exists() else None
    model = subject(values["model"], values["codec"], prepared_index)
    paper, card = (subject(preset(name), values["codec"], prepared_index) for name in (PAPER_PRESET, CARD_PRESET))
    available, source = available_tokens(values, prepared_index)
    budgets = token_budgets(model.counts.total, model.counts.active, available, planned_tokens(values["trainer"]))
    rows = [asdict(budget) for budget in budgets]
    return compliance_report(model, paper, card, {"available_tokens": available, "source": source, "rows": rows})


def subject(
    architecture: Mapping[str, Any], codec: Mapping[str, Any], prepared_index: Mapping[str, Any] | None
) -> Subject:
    """The model that the group `model` describes; a vocabulary of null follows the codec."""
    follows = architecture["vocab_size"] is None
    return Subject(*read_model(architecture, codec_vocabulary(codec, prepared_index).size if follows else 1))


def codec_vocabulary(codec: Mapping[str, Any], prepared_index: Mapping[str, Any] | None) -> Vocabulary:
    """The vocabulary of a codec's tokens, by its settings; those of a pretrained one stand with the prepared data.

    Raises:
        ValueError: neither tells.
    """
    if "quantization_channels" in codec:
        return Vocabulary(1, codec["quantization_channels"])
    if "codebook_size" in codec:
        return Vocabulary(codec.get("n_codebooks", 1), codec["codebook_size"])
    if prepared_index is not None:
        return Vocabulary(**prepared_index["vocabulary"])
    raise ValueError(
        f"model.vocab_size is null, and codec.kind '{codec['kind']}' tells its codebooks only once data are prepared; "
        "set model.vocab_size, or run prepare-data first."
    )


def available_tokens(values: Mapping[str, Any], prepared_index: Mapping[str, Any] | None) -> tuple[int | None, str]:
    """Tokens of the training data and where the number comes from; None where nothing tells."""
    if prepared_index is not None:
        return int(prepared_index["n_tokens"]), "the train split as prepared"
    data, codec = values["data"], values["codec"]
    tokens_per_second = {
        "mel_rvq": lambda: codec["sample_rate"] / codec["hop_length"] * codec["n_codebooks"],
        "mu_law": lambda: codec["sample_rate"],
    }.get(codec["kind"])
    if "minutes" not in data or tokens_per_second is None:
        return None, "not prepared"
    share = 1 - data["split"]["validation"] - data["split"]["test"]
    return round(
        60 * data["minutes"] * share * tokens_per_second()
    ), "not prepared; by data.minutes and the codec's rate"


def planned_tokens(trainer: Mapping[str, Any]) -> int:
    """Tokens that one device sees in the whole training."""
    sizes = ("max_steps", "accumulate_grad_batches", "batch_size", "sequence_length")
    return math.prod(trainer[size] for size in sizes)
