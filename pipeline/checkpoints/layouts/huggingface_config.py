"""config.json of the published DeepSeek-V3 layout, as DeepSeek published it and as `transformers` 5 writes it."""

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.precision.emulation import BLOCK
from pipeline.checkpoints.architecture import read_architecture
from pipeline.checkpoints.files.json_object import read_json_object
from pipeline.checkpoints.layouts.rope_scaling import read_rope_parameters, rope_parameters
from pipeline.checkpoints.other_formats import check_model_type, check_quantisation
from pipeline.checkpoints.stored_tensor import DamagedCheckpointError

CONFIG_FILE = "config.json"
# The published layout knows no segments: config.json calls them experts.
SEGMENT_FIELDS = ("num_expert_segments", "expert_segment_sizes", "expert_segment_routing", "num_segments_per_expert")
# What `transformers` leaves out, because its DeepSeek-V3 knows nothing else.
IMPLIED: Mapping[str, Any] = {"scoring_func": "sigmoid"}
# What DeepSeek's code and `transformers` take where config.json is silent, and no shape of a weight tells.
DEFAULTS: Mapping[str, Any] = {
    "n_group": 8,
    "topk_group": 4,
    "num_experts_per_tok": 8,
    "norm_topk_prob": True,
    "routed_scaling_factor": 2.5,
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 4096,
    "initializer_range": 0.02,
    "tie_word_embeddings": False,
}
# What the decoder does in one way only.
REQUIRED = {
    "hidden_act": "silu",
    "attention_bias": False,
    "topk_method": "noaux_tc",
    "moe_layer_freq": 1,
    "partial_rotary_factor": 1.0,
}
MODEL_TYPE = "deepseek_v3"
# Absent where they are null.
OPTIONAL = (*DEFAULTS, *IMPLIED, "n_shared_experts", "num_nextn_predict_layers", "rope_interleave")
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
        ValueError: when the layout cannot express how experts are split into segments or grouped, or what positions
            rotate.
    """
    if not config.qk_rope_head_dim:
        raise ValueError(
            "model.qk_rope_head_dim is 0, rotating whole heads, which the published layout cannot express; "
            "train with decoupled rotary dimensions to export."
        )
    architecture = asdict(published_architecture(config))
    for name in SEGMENT_FIELDS:
        del architecture[name]
    return {
        "architectures": ["DeepseekV3ForCausalLM"],
        "model_type": MODEL_TYPE,
        **{name: value for name, value in REQUIRED.items() if name != "partial_rotary_factor"},
        **architecture,
        **rope_parameters(config),
        "num_key_value_heads": config.num_attention_heads,
        "attention_dropout": 0.0,
        "use_cache": True,
        "torch_dtype": dtype,
        **special_tokens,
    }


def published_architecture(config: DecoderConfig) -> DecoderConfig:
    """The decoder as the published code can be told of it, which computes the same.

    Raises:
        ValueError: when that code has no way of computing it.
    """
    config = config.with_segments_as_experts().without_groups_of_one()
    if config.n_routed_experts == 1 and config.first_k_dense_replace < config.num_hidden_layers:
        raise ValueError(
            "model.n_routed_experts is 1, but the published code scores a group of experts by its two best; "
            "train with 2 experts or more, or with dense layers alone, to export."
        )
    return config


@dataclass(frozen=True)
class Description:
    """What config.json tells.

    Attributes:
        config: the decoder's architecture.
        knows_modules: whether it says how many prediction modules there are.
        quantisation: its `quantization_config`, where it has one.
        notes: what was taken for granted.
    """

    config: DecoderConfig
    knows_modules: bool
    quantisation: Mapping[str, Any] | None
    notes: tuple[str, ...]


def read_config(folder: Path) -> DecoderConfig:
    """The architecture that config.json describes; see `describe`."""
    return describe(folder).config


def describe(folder: Path) -> Description:
    """What config.json tells, of whichever exporter.

    Keys that are unknown are left aside: exporters and fine-tuners write many, and of those that change numbers the
    ones that are known are asked for by name (`REQUIRED`, `rope_scaling`).

    Raises:
        FileNotFoundError: when there is no config.json.
        DamagedCheckpointError: when it describes another kind of model or of weights, or leaves a width out.
    """
    path = folder / CONFIG_FILE
    values = read_json_object(path)
    check_model_type(values, path)
    check_quantisation(values, path)
    for name, required in REQUIRED.items():
        if values.get(name) is not None and values[name] != required:
            raise DamagedCheckpointError(
                f"{path}: {name} is {values[name]!r:.80}, not {required!r}; the decoder knows nothing else."
            )
    told = {name: value for name, value in values.items() if value is not None or name not in OPTIONAL}
    described = {"num_nextn_predict_layers": 0, "n_shared_experts": 0, **IMPLIED, **DEFAULTS, **told}
    described |= read_rope_parameters(values, path)
    absent = [f.name for f in fields(DecoderConfig) if f.name not in described and f.default is MISSING]
    if absent:
        raise DamagedCheckpointError(f"{path} lacks {', '.join(absent)}; take the one that belongs to the weights.")
    names = [field.name for field in fields(DecoderConfig) if field.name in described]
    config = read_architecture({name: described[name] for name in names}, path)
    quantisation = values.get("quantization_config") or None
    notes = _notes(values, told, path)
    return Description(config, "num_nextn_predict_layers" in told, quantisation, notes)


def _notes(values: Mapping[str, Any], told: Mapping[str, Any], path: Path) -> tuple[str, ...]:
    """What was taken for granted, in words."""
    notes = []
    if taken := [f"{name} ({value})" for name, value in DEFAULTS.items() if name not in told]:
        notes.append(f"{path} is silent about {', '.join(taken)}: what DeepSeek's code takes then.")
    if values.get("model_type") not in (None, MODEL_TYPE):
        notes.append(f"{path} calls the architecture {values['model_type']}; it is that of {MODEL_TYPE}.")
    return tuple(notes)
