"""How config.json tells positions, as the code published with DeepSeek-V3 reads it and as `transformers` does.

The two read the same keys, but not the same where a key is absent: DeepSeek's modeling_deepseek.py takes 1 for
`mscale`, 0 for `mscale_all_dim` and 4096 for `original_max_position_embeddings`. `transformers` leaves `mscale` aside
unless both are there, and takes `max_position_embeddings`. `attention_factor` and `truncate` only `transformers` knows.
What both read the same is taken; where they differ, nobody can tell which of the two the weights were trained with.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.model.yarn import YarnConfig
from pipeline.checkpoints.stored_tensor import DamagedCheckpointError

# What both take where no theta is told.
DEFAULT_THETA = 10000.0
TYPE_KEYS = ("rope_type", "type")
YARN_KEYS = ("factor", "original_max_position_embeddings", "beta_fast", "beta_slow", "mscale", "mscale_all_dim")
# These change numbers in `transformers` alone.
THEIRS = ("attention_factor", "truncate")
# What DeepSeek's code takes for the context before, where config.json is silent.
DEEPSEEK_CONTEXT = 4096


def rope_parameters(config: DecoderConfig) -> dict[str, Any]:
    """How config.json tells positions: as DeepSeek published it (`rope_scaling`), and as `transformers` 5 writes it."""
    scaling = (
        None if config.rope_scaling is None else {"type": "yarn", "rope_type": "yarn"} | _told(config.rope_scaling)
    )
    parameters = {"rope_type": "default"} | (scaling or {}) | {"rope_theta": config.rope_theta}
    parameters.pop("type", None)
    return {"rope_scaling": scaling, "rope_parameters": parameters}


def read_rope_parameters(values: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """`rope_theta` and `rope_scaling` as fields of the decoder, wherever config.json tells them.

    Args:
        values: the contents of config.json.
        path: of it, for messages.

    Raises:
        DamagedCheckpointError: when positions are scaled by anything but YaRN, by a key that is unknown, or by keys
            that DeepSeek's code and `transformers` read differently.
    """
    # Both codes look at rope_scaling first.
    key = "rope_scaling" if values.get("rope_scaling") else "rope_parameters"
    scaling = values.get(key) or {}
    if not isinstance(scaling, Mapping):
        raise DamagedCheckpointError(f"{path}: {key} is {str(scaling)[:80]!r}, no set of parameters.")
    scaling = {name: value for name, value in scaling.items() if value is not None}
    theta = _theta(values, scaling, path)
    if _kind(scaling, key, path) == "default":
        _check_keys(scaling, (), key, path)
        return {"rope_theta": theta, "rope_scaling": None}
    _check_keys(scaling, (*YARN_KEYS, *THEIRS), key, path)
    longest = values.get("max_position_embeddings", DEEPSEEK_CONTEXT)
    return {"rope_theta": theta, "rope_scaling": asdict(_read_yarn(scaling, longest, key, path))}


def _told(yarn: YarnConfig) -> dict[str, Any]:
    """The keys that say so much that both codes, which may read them otherwise, read them alike."""
    told = {name: value for name, value in asdict(yarn).items() if name not in THEIRS}
    if not yarn.truncate:
        told["truncate"] = False
    if yarn.attention_factor is not None or not math.isclose(
        _as_transformers(told, yarn.original_max_position_embeddings).rotary_scale, yarn.rotary_scale, rel_tol=1e-12
    ):
        told["attention_factor"] = yarn.rotary_scale
    return told


def _theta(values: Mapping[str, Any], scaling: Mapping[str, Any], path: Path) -> float:
    """The base of the rotation, which may be told in three places, but only once."""
    parameters = values.get("rope_parameters")
    places = [values, scaling, *([parameters] if isinstance(parameters, Mapping) else [])]
    told = [place["rope_theta"] for place in places if place.get("rope_theta") is not None]
    if any(theta != told[0] for theta in told):
        raise DamagedCheckpointError(
            f"{path} tells two different rope_theta, {' and '.join(map(str, dict.fromkeys(map(str, told))))}; "
            "keep the one that the weights were trained with."
        )
    return told[0] if told else DEFAULT_THETA


def _kind(scaling: Mapping[str, Any], key: str, path: Path) -> str:
    """How positions are scaled: `default` (not at all) or `yarn`."""
    kinds = list(dict.fromkeys(str(scaling[name]) for name in TYPE_KEYS if name in scaling))
    if len(kinds) > 1:
        raise DamagedCheckpointError(f"{path}: {key} is of two types, {' and '.join(kinds)}; keep the right one.")
    kind = kinds[0] if kinds else "default"
    if kind not in ("default", "yarn"):
        raise DamagedCheckpointError(f"{path} scales positions by {kind[:80]!r}; only 'yarn' is known.")
    return kind


def _check_keys(scaling: Mapping[str, Any], known: tuple[str, ...], key: str, path: Path) -> None:
    """Refuse keys that may change numbers in a way that the decoder does not know."""
    unknown = sorted(scaling.keys() - {*TYPE_KEYS, "rope_theta", "partial_rotary_factor", *known})
    if scaling.get("partial_rotary_factor", 1) != 1:
        unknown.append("partial_rotary_factor")
    if unknown:
        kind = scaling.get("rope_type", scaling.get("type", "default"))
        raise DamagedCheckpointError(
            f"{path}: {key} of the type '{kind}' has {', '.join(unknown)}, which the decoder does not know; delete "
            "what changes no number there, or name the type that it belongs to."
        )


def _read_yarn(scaling: Mapping[str, Any], longest: Any, key: str, path: Path) -> YarnConfig:
    """YaRN's parameters, if both codes read the same."""
    told = {name: value for name, value in scaling.items() if name in (*YARN_KEYS, *THEIRS)}
    for name, value in told.items():
        if type(value) not in ((bool,) if name == "truncate" else (int, float)):
            raise DamagedCheckpointError(f"{path}: {key}.{name} is {str(value)[:80]!r}, which it cannot be.")
    if "factor" not in told:
        raise DamagedCheckpointError(f"{path}: {key} scales positions by YaRN, but lacks its factor; add it.")
    try:
        theirs = _as_transformers(told, longest)
        if not told.keys().isdisjoint(THEIRS):
            return theirs
        deepseeks = _as_deepseek(told)
    except (ValueError, TypeError, OverflowError) as error:
        raise DamagedCheckpointError(f"{path}: {key} cannot be ({error}).") from error
    _check_same(deepseeks, theirs, key, path)
    return deepseeks


def _as_deepseek(told: Mapping[str, Any]) -> YarnConfig:
    """As `DeepseekV3YarnRotaryEmbedding` and `DeepseekV3Attention` of DeepSeek's modeling_deepseek.py read it."""
    defaults = {"original_max_position_embeddings": DEEPSEEK_CONTEXT, "mscale": 1.0, "mscale_all_dim": 0.0}
    return YarnConfig(**{**defaults, **told})


def _as_transformers(told: Mapping[str, Any], longest: Any) -> YarnConfig:
    """As `_compute_yarn_parameters` and `yarn_apply_mscale` of `transformers` read it."""
    yarn = YarnConfig(
        factor=told["factor"],
        original_max_position_embeddings=told.get("original_max_position_embeddings", longest),
        beta_fast=told.get("beta_fast") or 32.0,
        beta_slow=told.get("beta_slow") or 1.0,
        mscale=told.get("mscale", 1.0),
        mscale_all_dim=told.get("mscale_all_dim", 0.0),
        truncate=told.get("truncate", True),
    )
    factor = told.get("attention_factor")
    if factor is None and not (told.get("mscale") and told.get("mscale_all_dim")):
        factor = replace(yarn, mscale=1.0, mscale_all_dim=0.0).rotary_scale
    if factor is None or math.isclose(factor, yarn.rotary_scale, rel_tol=1e-12):
        return yarn
    return replace(yarn, attention_factor=factor)


def _check_same(deepseeks: YarnConfig, theirs: YarnConfig, key: str, path: Path) -> None:
    """Raise when the two codes would compute different positions from the same keys."""
    if deepseeks.original_max_position_embeddings != theirs.original_max_position_embeddings:
        raise DamagedCheckpointError(
            f"{path}: {key} lacks original_max_position_embeddings, for which DeepSeek's code takes "
            f"{deepseeks.original_max_position_embeddings} and transformers {theirs.original_max_position_embeddings}; "
            "add the one that the weights were trained with."
        )
    if not math.isclose(deepseeks.rotary_scale, theirs.rotary_scale, rel_tol=1e-12):
        raise DamagedCheckpointError(
            f"{path}: DeepSeek's code and transformers read {key}.mscale and mscale_all_dim differently where one of "
            f"them is absent or 0: cosines are scaled by {deepseeks.rotary_scale:.6g} or by {theirs.rotary_scale:.6g}; "
            "add the one that the weights were trained with as attention_factor."
        )
