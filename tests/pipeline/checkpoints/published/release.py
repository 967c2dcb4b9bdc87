"""DeepSeek's releases as they lie on the hub: their config.json, names, types and shapes; the numbers are holes."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

N_SHARDS = 163
# What the index of the release says, whose tensors have 688.6 GB.
TOTAL_SIZE = 1369062772000
LAYERS, DENSE_LAYERS, EXPERTS = 61, 3, 256
WIDTH, DENSE_WIDTH, EXPERT_WIDTH, VOCABULARY = 7168, 18432, 2048, 129280
SIZES = {"F32": 4, "BF16": 2, "F8_E4M3": 1}
# Every key of deepseek-ai/DeepSeek-V3.
CONFIG: dict[str, Any] = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "auto_map": {
        "AutoConfig": "configuration_deepseek.DeepseekV3Config",
        "AutoModel": "modeling_deepseek.DeepseekV3Model",
        "AutoModelForCausalLM": "modeling_deepseek.DeepseekV3ForCausalLM",
    },
    "aux_loss_alpha": 0.001,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "ep_size": 1,
    "first_k_dense_replace": DENSE_LAYERS,
    "hidden_act": "silu",
    "hidden_size": WIDTH,
    "initializer_range": 0.02,
    "intermediate_size": DENSE_WIDTH,
    "kv_lora_rank": 512,
    "max_position_embeddings": 163840,
    "model_type": "deepseek_v3",
    "moe_intermediate_size": EXPERT_WIDTH,
    "moe_layer_freq": 1,
    "n_group": 8,
    "n_routed_experts": EXPERTS,
    "n_shared_experts": 1,
    "norm_topk_prob": True,
    "num_attention_heads": 128,
    "num_experts_per_tok": 8,
    "num_hidden_layers": LAYERS,
    "num_key_value_heads": 128,
    "num_nextn_predict_layers": 1,
    "pretraining_tp": 1,
    "q_lora_rank": 1536,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "quantization_config": {
        "activation_scheme": "dynamic",
        "fmt": "e4m3",
        "quant_method": "fp8",
        "weight_block_size": [128, 128],
    },
    "rms_norm_eps": 1e-06,
    "rope_scaling": {
        "beta_fast": 32,
        "beta_slow": 1,
        "factor": 40,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
        "original_max_position_embeddings": 4096,
        "type": "yarn",
    },
    "rope_theta": 10000,
    "routed_scaling_factor": 2.5,
    "scoring_func": "sigmoid",
    "seq_aux": True,
    "tie_word_embeddings": False,
    "topk_group": 4,
    "topk_method": "noaux_tc",
    "torch_dtype": "bfloat16",
    "transformers_version": "4.33.1",
    "use_cache": True,
    "v_head_dim": 128,
    "vocab_size": VOCABULARY,
}
OF_TRAINING = ("aux_loss_alpha", "seq_aux", "pretraining_tp")
# R1 and later ones leave out what only training needs; V3.1 rounds factors to powers of two, and says so.
CONFIGS: dict[str, dict[str, Any]] = {
    "V3": CONFIG,
    "R1": {name: value for name, value in CONFIG.items() if name not in OF_TRAINING}
    | {"transformers_version": "4.46.3"},
    "V3.1": {name: value for name, value in CONFIG.items() if name not in OF_TRAINING}
    | {
        "quantization_config": CONFIG["quantization_config"] | {"scale_fmt": "ue8m0"},
        "transformers_version": "4.44.2",
    },
}


class Entry(NamedTuple):
    """A tensor in a header."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def n_bytes(self) -> int:
        n_numbers = 1
        for side in self.shape:
            n_numbers *= side
        return n_numbers * SIZES[self.dtype]


def entries() -> Iterator[Entry]:
    """All tensors, in the release's order."""
    yield Entry("model.embed_tokens.weight", "BF16", (VOCABULARY, WIDTH))
    for layer in range(LAYERS):
        yield from _layer(layer)
    yield Entry("model.norm.weight", "BF16", (WIDTH,))
    yield Entry("lm_head.weight", "BF16", (VOCABULARY, WIDTH))
    prefix = f"model.layers.{LAYERS}."
    yield Entry(prefix + "embed_tokens.weight", "BF16", (VOCABULARY, WIDTH))
    yield Entry(prefix + "enorm.weight", "BF16", (WIDTH,))
    yield Entry(prefix + "hnorm.weight", "BF16", (WIDTH,))
    yield Entry(prefix + "eh_proj.weight", "BF16", (WIDTH, 2 * WIDTH))
    yield Entry(prefix + "shared_head.norm.weight", "BF16", (WIDTH,))
    yield Entry(prefix + "shared_head.head.weight", "BF16", (VOCABULARY, WIDTH))
    yield from _layer(LAYERS)


def _layer(layer: int) -> Iterator[Entry]:
    prefix = f"model.layers.{layer}."
    attention = {
        "q_a_proj": (1536, WIDTH),
        "q_b_proj": (128 * 192, 1536),
        "kv_a_proj_with_mqa": (576, WIDTH),
        "kv_b_proj": (128 * 256, 512),
        "o_proj": (WIDTH, 128 * 128),
    }
    for name, shape in attention.items():
        yield from _quantised(f"{prefix}self_attn.{name}", shape)
    yield Entry(prefix + "self_attn.q_a_layernorm.weight", "BF16", (1536,))
    yield Entry(prefix + "self_attn.kv_a_layernorm.weight", "BF16", (512,))
    if layer < DENSE_LAYERS:
        yield from _network(prefix + "mlp.", DENSE_WIDTH)
    else:
        yield Entry(prefix + "mlp.gate.weight", "BF16", (EXPERTS, WIDTH))
        yield Entry(prefix + "mlp.gate.e_score_correction_bias", "F32", (EXPERTS,))
        yield from _network(prefix + "mlp.shared_experts.", EXPERT_WIDTH)
        for expert in range(EXPERTS):
            yield from _network(f"{prefix}mlp.experts.{expert}.", EXPERT_WIDTH)
    yield Entry(prefix + "input_layernorm.weight", "BF16", (WIDTH,))
    yield Entry(prefix + "post_attention_layernorm.weight", "BF16", (WIDTH,))


def _network(prefix: str, width: int) -> Iterator[Entry]:
    for name, shape in {"gate_proj": (width, WIDTH), "up_proj": (width, WIDTH), "down_proj": (WIDTH, width)}.items():
        yield from _quantised(prefix + name, shape)


def _quantised(name: str, shape: tuple[int, int]) -> Iterator[Entry]:
    yield Entry(f"{name}.weight", "F8_E4M3", shape)
    yield Entry(f"{name}.weight_scale_inv", "F32", (-(-shape[0] // 128), -(-shape[1] // 128)))


def write_release(folder: Path, config: dict[str, Any]) -> None:
    """Write a release: headers are real, numbers are holes, which take no room on the disk."""
    found = list(entries())
    share = sum(entry.n_bytes for entry in found) / N_SHARDS
    shards: list[list[Entry]] = [[]]
    taken = 0
    for entry in found:
        if taken >= share * len(shards) and len(shards) < N_SHARDS:
            shards.append([])
        shards[-1].append(entry)
        taken += entry.n_bytes
    weight_map = {}
    for number, shard in enumerate(shards, start=1):
        # Five digits, and six: as they are called.
        name = f"model-{number:05d}-of-{N_SHARDS:06d}.safetensors"
        weight_map |= dict.fromkeys((entry.name for entry in shard), name)
        _write_holes(folder / name, shard)
    index = {"metadata": {"total_size": TOTAL_SIZE}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    for name in ("configuration_deepseek.py", "modeling_deepseek.py", "tokenizer.json", "README.md", "LICENSE-MODEL"):
        (folder / name).write_text("of no weight\n")


def _write_holes(path: Path, shard: list[Entry]) -> None:
    header, end = {}, 0
    for entry in shard:
        start, end = end, end + entry.n_bytes
        header[entry.name] = {"dtype": entry.dtype, "shape": list(entry.shape), "data_offsets": [start, end]}
    encoded = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        file.truncate(8 + len(encoded) + end)
