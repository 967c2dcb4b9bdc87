"""config.json of DeepSeek's own inference code: the fields of its `ModelArgs` (inference/model.py of DeepSeek-V3).

That code takes these fields and no others, so the whole architecture lies beside them in `architecture.json`. A
checkpoint without that file, as DeepSeek's converter writes, is what `ModelArgs` says, and what its code takes for
granted: adjacent rotary pairs, `rms_norm_eps` 1e-6, gates normalised where experts are scored by sigmoid, no prediction
modules. Of YaRN its `mscale` scales attention, as `mscale_all_dim` does here; cosines and sines are never scaled.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning_modules.model.configuration import DecoderConfig
from pipeline.checkpoints.architecture import read_architecture
from pipeline.checkpoints.files.json_object import read_json_object
from pipeline.checkpoints.layouts.huggingface_config import published_architecture
from pipeline.checkpoints.stored_tensor import DamagedCheckpointError

CONFIG_FILE = "config.json"
ARCHITECTURE_FILE = "architecture.json"
# Fields that both name the same thing by.
SAME = {
    "vocab_size": "vocab_size",
    "dim": "hidden_size",
    "inter_dim": "intermediate_size",
    "moe_inter_dim": "moe_intermediate_size",
    "n_layers": "num_hidden_layers",
    "n_dense_layers": "first_k_dense_replace",
    "n_heads": "num_attention_heads",
    "n_routed_experts": "n_routed_experts",
    "n_shared_experts": "n_shared_experts",
    "n_activated_experts": "num_experts_per_tok",
    "n_expert_groups": "n_group",
    "n_limited_groups": "topk_group",
    "score_func": "scoring_func",
    "route_scale": "routed_scaling_factor",
    "kv_lora_rank": "kv_lora_rank",
    "qk_nope_head_dim": "qk_nope_head_dim",
    "qk_rope_head_dim": "qk_rope_head_dim",
    "v_head_dim": "v_head_dim",
    "rope_theta": "rope_theta",
}
# What `ModelArgs` takes where config.json is silent.
DEFAULTS: Mapping[str, Any] = {
    "max_seq_len": 16384,
    "vocab_size": 102400,
    "dim": 2048,
    "inter_dim": 10944,
    "moe_inter_dim": 1408,
    "n_layers": 27,
    "n_dense_layers": 1,
    "n_heads": 16,
    "n_routed_experts": 64,
    "n_shared_experts": 2,
    "n_activated_experts": 6,
    "n_expert_groups": 1,
    "n_limited_groups": 1,
    "score_func": "softmax",
    "route_scale": 1.0,
    "q_lora_rank": 0,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "original_seq_len": 4096,
    "rope_theta": 10000.0,
    "rope_factor": 40,
    "beta_fast": 32,
    "beta_slow": 1,
    "mscale": 1.0,
}
# Of how the model is run, not of what it is: its user may change them.
OF_RUNNING = ("max_batch_size", "max_seq_len", "dtype")
# Of DeepSeek-V3.2.
OF_OTHER_MODELS = ("index_n_heads", "index_head_dim", "index_topk")
NORM_EPS = 1e-6
# The width of the model whose routers have a bias, as that code tells them apart.
WIDTH_WITH_BIAS = 7168


def deepseek_config(config: DecoderConfig, dtype: str) -> dict[str, Any]:
    """The contents of config.json.

    Args:
        config: the architecture.
        dtype: `fp8` or `bf16`.

    Raises:
        ValueError: when the layout cannot express it.
    """
    if not config.qk_rope_head_dim:
        raise ValueError(
            "model.qk_rope_head_dim is 0, rotating whole heads, which DeepSeek's layout cannot express; "
            "train with decoupled rotary dimensions to export."
        )
    config = published_architecture(config)
    values = {theirs: getattr(config, ours) for theirs, ours in SAME.items()}
    longest = config.max_position_embeddings
    yarn = config.rope_scaling
    # Positions are scaled there where sequences may be longer than the original ones.
    positions: dict[str, Any] = {"original_seq_len": longest, "max_seq_len": longest}
    if yarn is not None:
        positions = {
            "original_seq_len": yarn.original_max_position_embeddings,
            "max_seq_len": longest,
            "rope_factor": yarn.factor,
            "beta_fast": yarn.beta_fast,
            "beta_slow": yarn.beta_slow,
            "mscale": yarn.mscale_all_dim,
        }
    return {**values, "q_lora_rank": config.q_lora_rank or 0, **positions, "dtype": dtype}


def differences(config: DecoderConfig) -> tuple[str, ...]:
    """What DeepSeek's code would compute otherwise than the decoder, in words; usually nothing."""
    yarn = config.rope_scaling
    found = {
        f"rms_norm_eps is {config.rms_norm_eps}, and {NORM_EPS} there": config.rms_norm_eps != NORM_EPS,
        "rotary pairs lie half a head apart (rope_interleave), and side by side there": not config.rope_interleave,
        f"norm_topk_prob is {config.norm_topk_prob}, and there what scoring_func makes it": config.norm_topk_prob
        != (config.scoring_func == "sigmoid"),
        f"routers have a bias, and there only where dim is {WIDTH_WITH_BIAS}": config.hidden_size != WIDTH_WITH_BIAS,
        "there are no shared experts, which are always there": not config.n_shared_experts,
        "rope_scaling scales cosines by its mscale or attention_factor, and none are scaled there": yarn is not None
        and yarn.rotary_scale != 1,
        "rope_scaling.truncate is false, and true there": yarn is not None and not yarn.truncate,
        "rope_scaling is for longer sequences than max_position_embeddings, and not used there": yarn is not None
        and config.max_position_embeddings <= yarn.original_max_position_embeddings,
    }
    return tuple(f"DeepSeek's inference code computes otherwise: {text}." for text, differs in found.items() if differs)


def read_config(folder: Path) -> DecoderConfig:
    """The architecture that `architecture.json` tells or, without it, config.json.

    Raises:
        FileNotFoundError: when there is no config.json.
        DamagedCheckpointError: when it describes no decoder, or the two files disagree.
    """
    path = folder / CONFIG_FILE
    values = read_json_object(path)
    if unknown := [name for name in OF_OTHER_MODELS if values.get(name)]:
        raise DamagedCheckpointError(
            f"{path} tells of {', '.join(unknown)}, which DeepSeek-V3 has not: it describes a later model, and the "
            "decoder would need its sparse attention."
        )
    if not (folder / ARCHITECTURE_FILE).exists():
        return read_architecture(_translated({**DEFAULTS, **values}, path), path)
    config = read_architecture(read_json_object(folder / ARCHITECTURE_FILE), folder / ARCHITECTURE_FILE)
    try:
        expected = deepseek_config(config, "bf16")
    except ValueError as error:
        raise DamagedCheckpointError(f"{folder / ARCHITECTURE_FILE} is none of this layout: {error}") from error
    for name, value in expected.items():
        if name not in OF_RUNNING and name in values and values[name] != value:
            raise DamagedCheckpointError(
                f"{path} says {name} is {values[name]!r}, but {ARCHITECTURE_FILE} says {value!r}; they are of "
                f"different models: take both from one, or delete {ARCHITECTURE_FILE}."
            )
    return config


def _translated(values: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The decoder's fields, from those of `ModelArgs`."""
    try:
        is_scaled = values["max_seq_len"] > values["original_seq_len"]
    except TypeError as error:
        raise DamagedCheckpointError(f"{path}: max_seq_len and original_seq_len are no numbers.") from error
    scaling = {
        "factor": values["rope_factor"],
        "original_max_position_embeddings": values["original_seq_len"],
        "beta_fast": values["beta_fast"],
        "beta_slow": values["beta_slow"],
        "mscale": values["mscale"],
        "mscale_all_dim": values["mscale"],
    }
    return {
        **{ours: values[theirs] for theirs, ours in SAME.items()},
        "q_lora_rank": values["q_lora_rank"] or None,
        "norm_topk_prob": values["score_func"] == "sigmoid",
        "rms_norm_eps": NORM_EPS,
        "max_position_embeddings": values["max_seq_len"],
        "rope_scaling": scaling if is_scaled else None,
        "tie_word_embeddings": False,
        "initializer_range": 0.02,
        "num_nextn_predict_layers": 0,
    }


def architecture(config: DecoderConfig) -> dict[str, Any]:
    """The contents of architecture.json."""
    return asdict(config.with_segments_as_experts())
