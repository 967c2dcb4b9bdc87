"""What a decoder costs: parameters, operations a token, cache and checkpoint bytes, counted from built modules.

Modules are built on the meta device, where weights have shapes and no storage: DeepSeek-V3's 671 billion parameters
are counted in a fraction of a second.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lightning_modules.model.attention import LatentAttention
from lightning_modules.model.cache import LatentCache
from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.model.decoder import Decoder
from lightning_modules.model.experts import FeedForward, GroupedExperts, MixtureOfExperts
from lightning_modules.model.router import HierarchicalRouter, Router

# Parameters are counted under these names, in this order.
COMPONENTS = (
    "embedding",
    "head",
    "attention",
    "dense_feed_forward",
    "router",
    "routed_experts",
    "shared_experts",
    "norms",
    "mtp_projection",
)
# A published FP8 checkpoint keeps everything else in BF16.
FP8_COMPONENTS = ("attention", "dense_feed_forward", "routed_experts", "shared_experts")
FP8_BLOCK = 128


@dataclass(frozen=True)
class ParameterCounts:
    """Parameters of a decoder; weights that two modules share count once.

    Attributes:
        by_component: parameters of the main model under each of `COMPONENTS` that it has.
        by_layer: the same, of each layer.
        active: of the main model, those that one token passes through: all but the routed experts not chosen for it.
        active_without_embedding: the same without the embedding, whose lookup multiplies nothing: the N of 6N FLOPs.
            A tied embedding stays, for it multiplies as the head.
        mtp: the prediction modules' own.
        mtp_as_published: the same with the copies of embedding and head that published checkpoints give each of them.
        mtp_active: of the prediction modules' own, those that one token passes through.
        routing_bias: elements of the main model's routing biases, which are buffers and no parameters.
    """

    by_component: dict[str, int]
    by_layer: tuple[dict[str, int], ...]
    active: int
    active_without_embedding: int
    mtp: int
    mtp_as_published: int
    mtp_active: int
    routing_bias: int

    @property
    def total(self) -> int:
        """The main model, without multi-token prediction: what is meant by a model's size."""
        return sum(self.by_component.values())

    @property
    def published(self) -> int:
        """All that a published checkpoint holds: the main model, and the prediction modules with their copies."""
        return self.total + self.mtp_as_published


class _NoInitialisation(TorchFunctionMode):
    """Leaves weights as they are: drawing random numbers on the meta device would import Dynamo, for seconds."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if getattr(func, "__module__", None) == "torch.nn.init":
            return None
        return func(*args, **(kwargs or {}))


def build_on_meta(config: DecoderConfig) -> Decoder:
    """A decoder whose weights have shapes only."""
    with torch.device("meta"), _NoInitialisation():
        return Decoder(config)


def count_parameters(decoder: Decoder) -> ParameterCounts:
    """Count a decoder's parameters by where its modules hold them."""
    main, mtp = _tally(decoder, without=decoder.mtp), _tally(decoder.mtp)
    total, own = sum(main.values()), sum(mtp.values())
    active = total - _inactive(decoder.layers)
    embedding, head = decoder.embed_tokens.weight, decoder.lm_head.weight
    return ParameterCounts(
        by_component=main,
        by_layer=tuple(_tally(layer) for layer in decoder.layers),
        active=active,
        active_without_embedding=active - (0 if head is embedding else embedding.numel()),
        mtp=own,
        mtp_as_published=own + len(decoder.mtp) * (embedding.numel() + head.numel()),
        mtp_active=own - _inactive(decoder.mtp),
        routing_bias=sum(
            module.e_score_correction_bias.numel() for module in decoder.layers.modules() if isinstance(module, Router)
        ),
    )


def forward_flops_per_token(decoder: Decoder, sequence_length: int) -> float:
    """Floating-point operations of the main model's forward pass, a token of full sequences of that length.

    Two for each active parameter that multiplies, and attention's own: scores and weighted values over the half of
    all pairs that causality leaves, 2 · H · (d_qk + d_v) · T / 2 a layer. Lookups, norms and softmax are left out.
    """
    attention = sum(
        2 * module.n_heads * (module.nope_dim + module.rope_dim + module.value_dim) * sequence_length / 2
        for module in decoder.layers.modules()
        if isinstance(module, LatentAttention)
    )
    return 2 * count_parameters(decoder).active_without_embedding + attention


def training_flops_per_token(decoder: Decoder, sequence_length: int) -> float:
    """Operations of one training step a token, by the usual convention: the backward pass counts as two forward ones.

    This makes 6N plus attention. Recomputation and multi-token prediction are not in it.
    """
    return 3 * forward_flops_per_token(decoder, sequence_length)


def cache_bytes_per_token(config: DecoderConfig, fp8: bool = False) -> int:
    """Bytes of the latent cache for each token of a row, all layers together: in BF16, or with the latents in FP8."""
    return round(LatentCache(config, 1, 1, torch.bfloat16, device="meta", fp8=fp8).bytes_per_token)


def checkpoint_bytes(decoder: Decoder, fp8: bool = False) -> int:
    """Bytes of the weights in the published layout, prediction modules and their copies included.

    BF16 throughout but for the routing biases, which are FP32. With `fp8`, the matrices of attention and feed-forward
    networks take one byte an element, and an FP32 scale for every block of 128 × 128.
    """
    embedding, head = decoder.embed_tokens.weight, decoder.lm_head.weight
    n_elements = count_parameters(decoder).published + (head.numel() if head is embedding else 0)
    size = 2 * n_elements + sum(4 * router.e_score_correction_bias.numel() for router in decoder.routers())
    if fp8:
        for component, name, parameter in component_parameters(decoder):
            if component in FP8_COMPONENTS and parameter.ndim >= 2:
                size += 4 * _fp8_blocks(name, parameter) - parameter.numel()
    return size


def measured_forward_flops(decoder: Decoder, n_tokens: int) -> int:
    """Run the main model over one row of `n_tokens` on its own device, and count the matmuls that PyTorch dispatches.

    A check of `forward_flops_per_token` for models small enough to run. Attention is counted over all pairs, the
    half that causality hides included, as PyTorch's counter does.
    """
    from torch.utils.flop_counter import FlopCounterMode

    tokens = torch.zeros(1, n_tokens, dtype=torch.long, device=decoder.embed_tokens.weight.device)
    mapping = {
        torch.ops.aten._grouped_mm: _grouped_mm_flops,
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
    }
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        decoder.next_token_logits(tokens)
    return counter.get_total_flops()


def component_parameters(module: nn.Module) -> Iterator[tuple[str, str, Tensor]]:
    """Yield (component, name, parameter) for every parameter within `module`, a shared one where it is first met.

    Raises:
        ValueError: a parameter lies in no module of a known kind.
    """
    seen: set[int] = set()
    for component, name, parameter in _walk(module, "", None):
        if id(parameter) in seen:
            continue
        if component is None:
            raise ValueError(f"{name} lies in a module of no known component; name its kind in counting.py.")
        seen.add(id(parameter))
        yield component, name, parameter


def _walk(module: nn.Module, path: str, component: str | None) -> Iterator[tuple[str | None, str, Tensor]]:
    component = component or _component_of(module, path.rpartition(".")[2])
    prefix = f"{path}." if path else ""
    for name, parameter in module.named_parameters(recurse=False):
        yield component, prefix + name, parameter
    for name, child in module.named_children():
        yield from _walk(child, prefix + name, component)


def _component_of(module: nn.Module, name: str) -> str | None:
    """The component that all parameters within a module belong to; None where its children decide."""
    if isinstance(module, FeedForward):
        return "shared_experts" if name == "shared_experts" else "dense_feed_forward"
    if isinstance(module, nn.Linear):
        return {"lm_head": "head", "eh_proj": "mtp_projection"}.get(name)
    kinds: dict[type[nn.Module], str] = {
        nn.Embedding: "embedding",
        LatentAttention: "attention",
        Router: "router",
        GroupedExperts: "routed_experts",
        nn.RMSNorm: "norms",
    }
    return next((component for kind, component in kinds.items() if isinstance(module, kind)), None)


def _tally(module: nn.Module, without: nn.Module | None = None) -> dict[str, int]:
    """Parameters within a module by component, in the order of `COMPONENTS`."""
    left_out = {id(parameter) for parameter in without.parameters()} if without is not None else set()
    counts: Counter[str] = Counter()
    for component, _, parameter in component_parameters(module):
        if id(parameter) not in left_out:
            counts[component] += parameter.numel()
    return {component: counts[component] for component in COMPONENTS if counts[component]}


def _inactive(module: nn.Module) -> int:
    """Parameters of the routed experts or segments that a token is not sent to; of unequal ones, on average."""
    inactive = 0
    for mixture in module.modules():
        if isinstance(mixture, MixtureOfExperts):
            router = mixture.gate
            n_chosen = router.n_chosen * (router.n_segments_chosen if isinstance(router, HierarchicalRouter) else 1)
            n_destinations = router.expert_loads.numel()
            n_parameters = sum(parameter.numel() for parameter in mixture.experts.parameters())
            inactive += n_parameters * (n_destinations - n_chosen) // n_destinations
    return inactive


def _fp8_blocks(name: str, parameter: Tensor) -> int:
    """Blocks that share a scale: those of one projection's matrix, of every expert where they are stacked."""
    *stack, rows, columns = parameter.shape
    n_matrices = math.prod(stack)
    if name.endswith("gate_up_proj"):
        n_matrices, rows = 2 * n_matrices, rows // 2
    return n_matrices * math.ceil(rows / FP8_BLOCK) * math.ceil(columns / FP8_BLOCK)


def _grouped_mm_flops(rows: torch.Size, weights: torch.Size, *_: object, **__: object) -> int:
    """Of rows [R, K] with one matrix each, out of stacked ones [E, K, N]."""
    return 2 * rows[0] * rows[1] * weights[-1]


def _attention_flops(query: torch.Size, key: torch.Size, value: torch.Size, *_: object, **__: object) -> int:
    """Scores and weighted values [B, H, T, d] over all pairs."""
    batch, heads, n_queries, width = query
    return 2 * batch * heads * n_queries * key[2] * (width + value[3])
