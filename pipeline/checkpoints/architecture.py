"""The architecture that a file tells: plain values of strangers, each of the type that its field has."""

import math
from collections.abc import Mapping
from dataclasses import is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from lightning_modules.model.configuration import DecoderConfig
from pipeline.checkpoints.stored_tensor import DamagedCheckpointError

# A single setting, and what one tensor holds; the largest of DeepSeek-V3 has 2³³ numbers.
MAX_NUMBER = 2**40
MAX_NUMBERS = 2**48


def read_architecture(values: object, path: Path) -> DecoderConfig:
    """The architecture whose fields `values` tells, which were read from `path`.

    Raises:
        DamagedCheckpointError: when a field is absent, unknown, or has a value that no decoder can have.
    """
    if not isinstance(values, Mapping):
        raise DamagedCheckpointError(f"{path} describes no decoder, but a {type(values).__name__}; get the file again.")
    hints = get_type_hints(DecoderConfig)
    for name, value in values.items():
        if name in hints and not _fits(value, hints[name]):
            raise DamagedCheckpointError(
                f"{path}: {name} is {str(value)[:80]!r}, which no decoder has; take the file that belongs to the "
                "weights."
            )
    try:
        config = DecoderConfig(**values)
    except (TypeError, ValueError) as error:
        raise DamagedCheckpointError(
            f"{path} describes no decoder ({error}); take the file that belongs to the weights."
        ) from error
    if (largest := _largest_matrix(config)) > MAX_NUMBERS:
        raise DamagedCheckpointError(
            f"{path} describes matrices of {largest} numbers, which no file holds; take the file that belongs to the "
            "weights."
        )
    return config


def _largest_matrix(config: DecoderConfig) -> int:
    """An upper bound of the numbers in any tensor of the decoder."""
    tallest = max(
        config.vocab_size,
        config.intermediate_size,
        config.num_attention_heads * max(config.qk_head_dim, config.qk_nope_head_dim + config.v_head_dim),
        (config.n_routed_experts + config.n_shared_experts) * 2 * config.moe_intermediate_size,
        config.kv_lora_rank + config.qk_rope_head_dim,
        config.q_lora_rank or 0,
    )
    return tallest * max(2 * config.hidden_size, config.kv_lora_rank, config.q_lora_rank or 0)


def _fits(value: Any, hint: Any) -> bool:
    """Whether a plain value is one of a field's type; whole numbers do for others."""
    if get_origin(hint) in (Union, UnionType):
        return any(_fits(value, choice) for choice in get_args(hint))
    if get_origin(hint) is tuple:
        return isinstance(value, list | tuple) and all(_fits(item, get_args(hint)[0]) for item in value)
    if is_dataclass(hint):
        fields = get_type_hints(hint)
        return isinstance(value, Mapping) and all(_fits(item, fields.get(name)) for name, item in value.items())
    if hint is float:
        return type(value) in (int, float) and abs(value) <= MAX_NUMBER and math.isfinite(value)
    return type(value) is hint and (hint is not int or abs(value) <= MAX_NUMBER)
