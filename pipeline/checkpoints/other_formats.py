"""Checkpoints that are whole, but not what is read here: named for what they are, with what would help."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from lightning_modules.precision.emulation import BLOCK
from pipeline.checkpoints.stored_tensor import DamagedCheckpointError, StoredTensor

# Names under which the very same architecture is published.
SAME_ARCHITECTURE = ("deepseek_v3", "kimi_k2")
# Relatives, and what the decoder would need to be one of them.
RELATIVES: Mapping[str, str] = {
    "deepseek": "grouped-query attention in place of the latent one, and routers by softmax without a bias",
    "deepseek_v2": "routers by softmax without a bias, whose groups are scored by their best expert alone",
    "deepseek_v32": "sparse attention, with an indexer that chooses what is attended to",
    "deepseek_v4": "sparse attention over compressed keys, hyper-connections, and experts in FP4",
    "kimi_k25": "an image tower; its text_config and language_model.* alone are kimi_k2, which is read",
    "kimi_linear": "linear attention in most layers",
    "glm4_moe": "grouped-query attention, which rotates a part of each head",
    "glm4_moe_lite": "layers told by mlp_layer_types in place of first_k_dense_replace",
    "glm_moe_dsa": "sparse attention, with an indexer that chooses what is attended to",
    "longcat_flash": "experts that do nothing, and two attentions a layer",
    "dots1": "grouped-query attention in place of the latent one",
    "mistral4": "routers by softmax, and scaled positions of its own",
    "youtu": "layers without experts alone: its config.json has none of the fields that tell of them",
}
READABLE = f"BF16, FP16, FP32, and FP8 (E4M3) with FP32 factors of blocks of {BLOCK} x {BLOCK}"
# Endings of tensors that other ways of quantising write, in the order of asking.
ENDINGS: Mapping[str, str] = {
    "weight_packed": "compressed-tensors, whole numbers packed into others",
    "qzeros": "AWQ or GPTQ, whole numbers with zero points",
    "qweight": "AWQ or GPTQ, whole numbers packed into others",
    "g_idx": "GPTQ",
    "absmax": "bitsandbytes",
    "SCB": "bitsandbytes, 8 bits",
    "weight_scale_2": "NVIDIA's FP4 (modelopt)",
    "weight_scale": "per-channel or per-tensor factors (compressed-tensors, fbgemm_fp8 or modelopt)",
    "input_scale": "static activation scales",
}


def check_model_type(values: Mapping[str, Any], path: Path) -> None:
    """Raise unless config.json describes the decoder's architecture, by whichever of its names.

    Raises:
        DamagedCheckpointError: naming the architecture, and what the decoder would need to be that.
    """
    kind = values.get("model_type")
    if kind in SAME_ARCHITECTURE or (kind is None and values.get("architectures") == ["DeepseekV3ForCausalLM"]):
        return
    if isinstance(kind, str) and kind in RELATIVES:
        raise DamagedCheckpointError(
            f"{path}: model_type is {kind!r}, a relative of DeepSeek-V3; the decoder would need {RELATIVES[kind]}."
        )
    raise DamagedCheckpointError(
        f"{path}: model_type is {str(kind)[:80]!r}, another architecture; read are {' and '.join(SAME_ARCHITECTURE)}."
    )


def check_quantisation(values: Mapping[str, Any], path: Path) -> None:
    """Raise when `quantization_config` tells of weights that are stored as nothing here reads them.

    Raises:
        DamagedCheckpointError: naming the format, and the way on.
    """
    described = values.get("quantization_config") or values.get("compression_config")
    if not described:
        return
    if not isinstance(described, Mapping):
        raise DamagedCheckpointError(f"{path}: quantization_config is {str(described)[:80]!r}, no description of one.")
    method = str(described.get("quant_method"))[:80]
    block = described.get("weight_block_size")
    if method == "fp8" and block == [BLOCK, BLOCK] and described.get("fmt", "e4m3") == "e4m3":
        return
    details = "per tensor or channel" if block is None else f"in blocks of {str(block)[:40]}"
    details = f"FP8 ({str(described.get('fmt', 'e4m3'))[:20]}) {details}" if method == "fp8" else _bits(described)
    raise _other_format(f"{path} says that its weights are quantised by '{method}'{', ' * bool(details)}{details}")


def check_names(names: Iterable[str], path: Path) -> None:
    """Raise when tensors are called as other ways of quantising call theirs, whatever config.json says.

    Raises:
        DamagedCheckpointError: naming the format, and the way on.
    """
    found: dict[str, str] = {}
    for name in names:
        found.setdefault(re.split(r"[.]", name)[-1], name)
    for ending, method in ENDINGS.items():
        if ending in found:
            raise _other_format(f"{path} holds {found[ending]}, as {method} calls it")


def check_factors(name: str, stored: StoredTensor) -> None:
    """Raise unless the factors of a weight in FP8 are those of its blocks of 128 x 128, in FP32.

    Raises:
        DamagedCheckpointError: naming what they are instead.
    """
    scale = stored.scale
    if scale is None:
        return
    blocks = tuple(-(-side // BLOCK) for side in stored.shape)
    if scale.shape == blocks and scale.dtype == torch.float32:
        return
    kind = _granularity(stored.shape, scale.shape)
    if kind is None and scale.shape != blocks:
        raise DamagedCheckpointError(
            f"{scale.file}: the factors of {name} are {scale.dtype} {list(scale.shape)} beside {list(stored.shape)}; "
            f"FP8 has FP32 factors {list(blocks)}: the files come from different exports."
        )
    what = kind or f"factors of blocks of {BLOCK} x {BLOCK}, but in {scale.dtype}"
    raise _other_format(f"{scale.file}: {name} is in FP8 with {what}")


def _granularity(shape: tuple[int, ...], factors: tuple[int, ...]) -> str | None:
    """What factors of this shape belong to, where that is another known way of sharing them out."""
    if torch.Size(factors).numel() == 1:
        return "one factor for the whole tensor"
    if factors in ((shape[0],), (shape[0], 1)):
        return "a factor for every channel"
    for rows in (1, 16, 32, 64, 256):
        for columns in (16, 32, 64, 128, 256):
            if factors == (-(-shape[0] // rows), -(-shape[-1] // columns)):
                return f"a factor for every {rows} x {columns} numbers"
    return None


def _bits(described: Mapping[str, Any]) -> str:
    """How many bits a weight has, where the description says."""
    bits = next((described[key] for key in ("bits", "w_bit", "num_bits") if key in described), None)
    if bits is None and (described.get("load_in_4bit") or described.get("load_in_8bit")):
        bits = 4 if described.get("load_in_4bit") else 8
    return "" if bits is None else f"{str(bits)[:10]} bits"


def _other_format(found: str) -> DamagedCheckpointError:
    return DamagedCheckpointError(
        f"{found}. The checkpoint may be whole, but it is in a format that is not read here: read are {READABLE}. Take "
        "the original weights, or dequantise it with the tool that made it."
    )
