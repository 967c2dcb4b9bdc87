"""The published DeepSeek-V3 layout: config.json and sharded safetensors, as `transformers` reads it."""

import json
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lightning_modules.model.configuration import DecoderConfig, YarnConfig
from lightning_modules.model.decoder import Decoder
from pipeline.files import atomic_write, read_json, write_json

log = logging.getLogger(__name__)

INDEX_FILE = "model.safetensors.index.json"
# A statistic that the published layout has no place for: kept beside it, so that nothing is lost.
EXPERT_LOADS_FILE = "expert_loads.safetensors"
EXPERT_LOADS = "mlp.gate.expert_loads"
# The published layout knows no segments: config.json calls them experts.
SEGMENT_FIELDS = ("num_expert_segments", "expert_segment_sizes", "expert_segment_routing", "num_segments_per_expert")


def published_name(name: str, config: DecoderConfig) -> str:
    """The published name of one of the decoder's own weights; stacked experts keep theirs until they are split."""
    if name.startswith("lm_head."):
        return name
    module = re.fullmatch(r"mtp\.(\d+)\.(block\.|norm\.)?(.*)", name)
    if module is None:
        return f"model.{name}"
    depth, part, rest = module.groups()
    prefix = f"model.layers.{config.num_hidden_layers + int(depth)}."
    return prefix + {"norm.": "shared_head.norm.", "block.": "", None: ""}[part] + rest


def to_published(weights: Mapping[str, Tensor], config: DecoderConfig) -> Iterator[tuple[str, str, Tensor]]:
    """Yield (own name, published name, tensor) for every tensor of the published layout.

    Stacked experts are split, one matrix a projection and expert, and the prediction modules get copies of the
    embedding and the head, which every loader expects.
    """
    for name, tensor in weights.items():
        published = published_name(name, config)
        if name.endswith("experts.gate_up_proj"):
            base = published.removesuffix("gate_up_proj")
            for expert, matrix in enumerate(tensor):
                gate, up = matrix.chunk(2)
                yield name, f"{base}{expert}.gate_proj.weight", gate
                yield name, f"{base}{expert}.up_proj.weight", up
        elif name.endswith("experts.down_proj"):
            base = published.removesuffix("down_proj")
            for expert, matrix in enumerate(tensor):
                yield name, f"{base}{expert}.down_proj.weight", matrix
        elif not name.endswith(EXPERT_LOADS):
            yield name, published, tensor
    for depth in range(config.num_nextn_predict_layers):
        prefix = f"model.layers.{config.num_hidden_layers + depth}."
        yield "embed_tokens.weight", prefix + "embed_tokens.weight", weights["embed_tokens.weight"]
        yield "lm_head.weight", prefix + "shared_head.head.weight", weights["lm_head.weight"]


def from_published(
    tensors: Mapping[str, Tensor], config: DecoderConfig, own_names: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Gather published tensors under the decoder's own names.

    Args:
        tensors: tensors under their published names.
        config: the decoder's architecture.
        own_names: the decoder's state dict (tensors may be on the meta device): what has to be found.

    Raises:
        ValueError: naming the tensors that are missing or have another shape.
    """
    found, missing = {}, []
    for name, expected in own_names.items():
        published = published_name(name, config)
        try:
            if name.endswith("experts.gate_up_proj"):
                base = published.removesuffix("gate_up_proj")
                tensor = _stack_experts(tensors, base, ("gate_proj", "up_proj"), config.n_routed_segments)
            elif name.endswith("experts.down_proj"):
                tensor = _stack_experts(
                    tensors, published.removesuffix("down_proj"), ("down_proj",), config.n_routed_segments
                )
            else:
                tensor = tensors[published]
        except KeyError as error:
            missing.append(error.args[0])
            continue
        if tensor.shape != expected.shape:
            raise ValueError(
                f"{published} has the shape {tuple(tensor.shape)}, but config.json asks for {tuple(expected.shape)}."
            )
        found[name] = tensor
    if missing:
        raise ValueError(f"{len(missing)} tensors are missing from the checkpoint: {', '.join(sorted(missing)[:8])}.")
    return found


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
        "model_type": "deepseek_v3",
        **architecture,
        **rope_parameters(config),
        "num_key_value_heads": config.num_attention_heads,
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "topk_method": "noaux_tc",
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


def write_huggingface(
    folder: Path,
    config: DecoderConfig,
    weights: Mapping[str, Tensor],
    special_tokens: Mapping[str, int],
    shard_bytes: int,
) -> list[tuple[str, str]]:
    """Write a decoder in the published layout.

    Args:
        folder: where to write; must exist.
        config: the decoder's architecture.
        weights: tensors under the decoder's own names.
        special_tokens: `bos_token_id`, `eos_token_id`, `pad_token_id`.
        shard_bytes: a safetensors file holds at most this much, or one tensor.

    Returns:
        (own name, published name) of every tensor that is called differently.

    Raises:
        ValueError: when the layout cannot express the decoder; nothing has been written then.
    """
    dtype = str(weights["embed_tokens.weight"].dtype).removeprefix("torch.")
    described = huggingface_config(config, special_tokens, dtype)
    if config.scoring_func != "sigmoid":
        log.warning("transformers scores experts by sigmoid whatever config.json says; load this export elsewhere.")
    shards: list[dict[str, Tensor]] = [{}]
    renamed, size = [], 0
    for name, published, tensor in to_published(weights, config):
        if size and size + tensor.nbytes > shard_bytes:
            shards.append({})
            size = 0
        # Copies of shared tensors must not alias within a file, and slices must be whole.
        shards[-1][published] = tensor.detach().clone().contiguous()
        size += tensor.nbytes
        if name != published:
            renamed.append((name, published))
    weight_map = {}
    for index, shard in enumerate(shards, start=1):
        file_name = f"model-{index:05d}-of-{len(shards):05d}.safetensors"
        with atomic_write(folder / file_name) as temporary:
            save_file(shard, temporary, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(shard, file_name))
    total = sum(tensor.nbytes for shard in shards for tensor in shard.values())
    write_json(folder / INDEX_FILE, {"metadata": {"total_size": total}, "weight_map": weight_map})
    loads = {
        published_name(name, config): tensor.clone() for name, tensor in weights.items() if name.endswith(EXPERT_LOADS)
    }
    if loads:
        with atomic_write(folder / EXPERT_LOADS_FILE) as temporary:
            save_file(loads, temporary)
    write_json(folder / "config.json", described)
    write_json(folder / "generation_config.json", {"do_sample": True, **special_tokens})
    return renamed


def read_config(folder: Path) -> DecoderConfig:
    """The architecture that config.json describes.

    Raises:
        ValueError: when config.json describes another kind of model, or leaves a field out.
    """
    values = read_json(folder / "config.json")
    if values.get("model_type") != "deepseek_v3":
        raise ValueError(f"{folder / 'config.json'}: model_type is {values.get('model_type')!r}, not 'deepseek_v3'.")
    described = read_rope_parameters(values)
    absent = [f.name for f in fields(DecoderConfig) if f.name not in described and f.default is MISSING]
    if absent:
        raise ValueError(f"{folder / 'config.json'} lacks {', '.join(absent)}.")
    names = [field.name for field in fields(DecoderConfig) if field.name in described]
    return DecoderConfig(**{name: described[name] for name in names})


def read_rope_parameters(values: Mapping[str, Any]) -> dict[str, Any]:
    """The contents of config.json with `rope_theta` and `rope_scaling` in their places, wherever it tells them.

    Raises:
        ValueError: when positions are scaled by anything but YaRN.
    """
    scaling = values.get("rope_scaling") or values.get("rope_parameters") or {}
    theta = scaling.get("rope_theta", values.get("rope_theta"))
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind not in ("default", "yarn"):
        raise ValueError(f"config.json scales positions by {kind!r}; only 'yarn' is known.")
    known = {field.name for field in fields(YarnConfig)}
    yarn = {name: value for name, value in scaling.items() if name in known} if kind == "yarn" else None
    return {**values, **({} if theta is None else {"rope_theta": theta}), "rope_scaling": yarn}


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors of an export, under their published names, the expert loads among them.

    Raises:
        ValueError: when the index or a shard is damaged, or the two disagree.
    """
    weight_map = read_json(folder / INDEX_FILE)["weight_map"]
    tensors: dict[str, Tensor] = {}
    for file_name in sorted(set(weight_map.values())):
        if Path(file_name).name != file_name:
            raise ValueError(f"{folder / INDEX_FILE} names the shard {file_name!r}, which is not a file of its folder.")
        tensors |= _read_safetensors(folder / file_name)
    absent = sorted(set(weight_map) - set(tensors))
    if absent:
        raise ValueError(f"{folder / INDEX_FILE} lists {absent[0]}, but no shard holds it.")
    if (folder / EXPERT_LOADS_FILE).exists():
        tensors |= _read_safetensors(folder / EXPERT_LOADS_FILE)
    return tensors


def load_decoder(folder: Path) -> Decoder:
    """Build the decoder that an export holds, ready for inference.

    Raises:
        FileNotFoundError, ValueError: when the export is absent, incomplete or damaged.
    """
    config = read_config(folder)
    with torch.device("meta"):
        decoder = Decoder(config)
    weights = from_published(read_tensors(folder), config, decoder.state_dict())
    decoder.load_state_dict(weights, assign=True)
    return decoder.eval()


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dictionary
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} cannot be read ({error}); run convert-checkpoint again.") from error


def _stack_experts(tensors: Mapping[str, Tensor], base: str, projections: tuple[str, ...], n_experts: int) -> Tensor:
    return torch.stack(
        [
            torch.cat([tensors[f"{base}{expert}.{projection}.weight"] for projection in projections])
            for expert in range(n_experts)
        ]
    )
