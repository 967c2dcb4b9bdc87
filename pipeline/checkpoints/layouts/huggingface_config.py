"""config.json of the published DeepSeek-V3 layout, as DeepSeek published it and as `transformers` 5 writes it."""

from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any

from lightning_modules.model.configuration import DecoderConfig, YarnConfig
from lightning_modules.precision.emulation import BLOCK
from pipeline.checkpoints.architecture import read_architecture
from pipeline.checkpoints.files.json_object import read_json_object
from pipeline.checkpoints.stored_tensor import DamagedCheckpointError

CONFIG_FILE = "config.json"
# The published layout knows no segments: config.json calls them experts.
SEGMENT_FIELDS = ("num_expert_segments", "expert_segment_sizes", "expert_segment_routing", "num_segments_per_expert")
# What `transformers` leaves out, because its DeepSeek-V3 knows nothing else.
IMPLIED: Mapping[str, Any] = {"scoring_func": "sigmoid", "num_nextn_predict_layers": 0}
# What the decoder does in one way only.
REQUIRED = {
    "model_type": "deepseek_v3",
    "hidden_act": "silu",
    "attention_bias": False,
    "topk_method": "noaux_tc",
    "moe_layer_freq": 1,
}
# How DeepSeek published its FP8 weights (README_WEIGHTS.md of DeepSeek-V3).
QUANTISATION = {
    "activation_scheme": "dynamic",
    "fmt": "e4m3",
    "quant_method": "fp8",
    "weight_block_size": [BLOCK, BLOCK],
}


def huggingface_config(config: DecoderConfig, special_tokens: Mapping[str, int], dtype: str) -> dict[str, Any]:
    """The contents of config.json. Independent segments of one width are written as the experts that they are.

    Raises:
        ValueError: when the layout cannot express how experts are split into segments, or what positions rotate.
    """
    if not config.qk_rope_head_dim:
        raise ValueError(
            "model.qk_rope_head_dim is 0, rotating whole heads, which the published layout cannot express; "
            "train with decoupled rotary dimensions to export."
        )
    architecture = asdict(config.with_segments_as_experts())
    for name in SEGMENT_FIELDS:
        del architecture[name]
    return {
        "architectures": ["DeepseekV3ForCausalLM"],
        **REQUIRED,
        **architecture,
        **rope_parameters(config),
        "num_key_value_heads": config.num_attention_heads,
        "attention_dropout": 0.0,
        "use_cache": True,
        "torch_dtype": dtype,
        **special_tokens,
    }


def rope_parameters(config: DecoderConfig) -> dict[str, Any]:
    """How config.json tells positions: as DeepSeek published it (`rope_scaling`), and as `transformers` 5 writes it."""
    scaling = (
        None if config.rope_scaling is None else {"type": "yarn", "rope_type": "yarn"} | asdict(config.rope_scaling)
    )
    parameters = {"rope_type": "default"} | (scaling or {}) | {"rope_theta": config.rope_theta}
    parameters.pop("type", None)
    return {"rope_scaling": scaling, "rope_parameters": parameters}


def read_config(folder: Path) -> DecoderConfig:
    """The architecture that config.json describes.

    Raises:
        FileNotFoundError: when there is no config.json.
        DamagedCheckpointError: when it describes another kind of model, or leaves a field out.
    """
    path = folder / CONFIG_FILE
    values = read_json_object(path)
    for name, required in REQUIRED.items():
        if values.get(name, None if name == "model_type" else required) != required:
            raise DamagedCheckpointError(
                f"{path}: {name} is {values.get(name)!r}, not {required!r}; the decoder knows nothing else."
            )
    described = {**IMPLIED, **read_rope_parameters(values, path)}
    absent = [f.name for f in fields(DecoderConfig) if f.name not in described and f.default is MISSING]
    if absent:
        raise DamagedCheckpointError(f"{path} lacks {', '.join(absent)}; take the one that belongs to the weights.")
    names = [field.name for field in fields(DecoderConfig) if field.name in described]
    return read_architecture({name: described[name] for name in names}, path)


def read_rope_parameters(values: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The contents of config.json with `rope_theta` and `rope_scaling` in their places, wherever it tells them.

    Raises:
        DamagedCheckpointError: when positions are scaled by anything but YaRN.
    """
    scaling = values.get("rope_scaling") or values.get("rope_parameters") or {}
    if not isinstance(scaling, dict):
        raise DamagedCheckpointError(f"{path}: rope_scaling is {scaling!r}, no set of parameters.")
    theta = scaling.get("rope_theta", values.get("rope_theta"))
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind not in ("default", "yarn"):
        raise DamagedCheckpointError(f"{path} scales positions by {kind!r}; only 'yarn' is known.")
    known = {field.name for field in fields(YarnConfig)}
    yarn = {name: value for name, value in scaling.items() if name in known} if kind == "yarn" else None
    return {**values, **({} if theta is None else {"rope_theta": theta}), "rope_scaling": yarn}
