"""The published names of DeepSeek-V3, and where the tensors that bear them lie among the decoder's own."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.model.counting import build_on_meta

EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"
# A statistic that the published layout has no place for.
EXPERT_LOADS = "mlp.gate.expert_loads"
# What stays FP32 whatever the rest is stored in: a rounded bias changes which experts are chosen.
ALWAYS_FP32 = ("mlp.gate.e_score_correction_bias", "mlp.gate.segment_bias", EXPERT_LOADS)
_STACK = re.compile(r"(.+\.experts\.)(?:segments\.(\d+)\.)?(gate_up_proj|down_proj)")
_LINEAR = re.compile(
    r".+\.(self_attn\.\w+_(?:proj|proj_with_mqa)|mlp\.(?:experts\.\d+\.|shared_experts\.)?(?:gate|up|down)_proj)\.weight"
)


@dataclass(frozen=True)
class Part:
    """Where a published tensor lies in the decoder's state dict.

    Attributes:
        own: the decoder's name of the tensor that holds it.
        shape: of the published tensor.
        expert: which matrix of a stack `[E, out, in]` holds it; None: it is the whole tensor.
        start: its first row in that matrix.
    """

    own: str
    shape: tuple[int, ...]
    expert: int | None = None
    start: int = 0


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


def published_parts(config: DecoderConfig) -> dict[str, Part]:
    """Every tensor of the architecture by its published name, in the decoder's order.

    `….mlp.gate.expert_loads` is among them, which the published layout does not know. Segments of experts count as the
    experts they are: segment s of expert e is number e · S + s.
    """
    return {
        published: part
        for own, tensor in own_tensors(config).items()
        for published, part in _split(own, tensor, config)
    }


def own_tensors(config: DecoderConfig) -> dict[str, Tensor]:
    """The decoder's state dict on the meta device: what has to be found, and in which shape."""
    return build_on_meta(config).state_dict()


def own_parts(config: DecoderConfig) -> dict[str, list[str]]:
    """The decoder's own names, each with the published tensors whose numbers, one after the other, are its own."""
    grouped: dict[str, list[str]] = {}
    for published, part in published_parts(config).items():
        grouped.setdefault(part.own, []).append(published)
    return grouped


def shared_copies(config: DecoderConfig) -> dict[str, str]:
    """Copies that published prediction modules hold of the embedding and the head, each with what it is a copy of."""
    copies = {}
    for depth in range(config.num_nextn_predict_layers):
        prefix = f"model.layers.{config.num_hidden_layers + depth}."
        copies[prefix + "embed_tokens.weight"] = EMBEDDING
        copies[prefix + "shared_head.head.weight"] = HEAD
    return copies


def in_prediction_module(name: str, config: DecoderConfig) -> bool:
    """Whether a published name belongs to multi-token prediction."""
    layer = re.match(r"model\.layers\.(\d+)\.", name)
    return layer is not None and int(layer[1]) >= config.num_hidden_layers


def is_linear(name: str) -> bool:
    """Whether a published name is one of the projections that the published FP8 checkpoint stores in FP8.

    These are the matrices of attention, dense networks, routed and shared experts. Embedding, head, norms, routers and
    `eh_proj` are not: vLLM and SGLang read the last into a plain linear layer.
    """
    return _LINEAR.fullmatch(name) is not None


def _split(own: str, tensor: Tensor, config: DecoderConfig) -> Iterator[tuple[str, Part]]:
    """The published tensors that one of the decoder's own consists of."""
    published = published_name(own, config)
    stack = _STACK.fullmatch(published)
    if stack is None:
        yield published, Part(own, tuple(tensor.shape))
        return
    base, place, projection = stack.groups()
    n_places = 1 if place is None else config.num_expert_segments
    projections = ("gate_proj", "up_proj") if projection == "gate_up_proj" else ("down_proj",)
    n_experts, n_rows, n_columns = tensor.shape
    height = n_rows // len(projections)
    for expert in range(n_experts):
        number = expert * n_places + int(place or 0)
        for index, name in enumerate(projections):
            yield f"{base}{number}.{name}.weight", Part(own, (height, n_columns), expert, index * height)
