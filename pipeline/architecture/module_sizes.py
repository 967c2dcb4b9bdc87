"""Sizes read off the modules of a built decoder; None where it has no such module."""

from lightning_modules.model.attention import LatentAttention
from lightning_modules.model.decoder import Decoder
from lightning_modules.model.experts import FeedForward, MixtureOfExperts


def n_heads(decoder: Decoder) -> int:
    """Attention heads, by the width of their joined output."""
    attention = _attention(decoder)
    return attention.o_proj.in_features // attention.value_dim


def value_dim(decoder: Decoder) -> int:
    """Width of a head's value: what the latent expands to beside the keys."""
    attention = _attention(decoder)
    return attention.kv_b_proj.out_features // attention.n_heads - attention.nope_dim


def query_dim(decoder: Decoder) -> int:
    """Width of a head's query and key, with and without position together."""
    attention = _attention(decoder)
    query = attention.q_b_proj if attention.compresses_query else attention.q_proj
    return query.out_features // attention.n_heads


def query_rank(decoder: Decoder) -> int | str:
    """Width of the compressed query."""
    attention = _attention(decoder)
    return attention.q_a_proj.out_features if attention.compresses_query else "not compressed"


def latent_rank(decoder: Decoder) -> int:
    """Width of the latent that keys and values are expanded from."""
    return _attention(decoder).kv_b_proj.in_features


def leading_dense_layers(decoder: Decoder) -> int:
    """Layers without experts before the first one with them."""
    return len(_dense_networks(decoder))


def dense_width(decoder: Decoder) -> int | None:
    """Hidden units of the leading dense layers' feed-forward networks."""
    networks = _dense_networks(decoder)
    return networks[0].down_proj.in_features if networks else None


def routed_destinations(decoder: Decoder) -> int | None:
    """Routed experts or, where they are split, segments of them: what a router keeps a load for."""
    mixture = _mixture(decoder)
    return None if mixture is None else mixture.gate.expert_loads.numel()


def expert_width(decoder: Decoder) -> int | None:
    """Hidden units of one routed expert, or of a segment where they are split; of unequal ones, the mean."""
    mixture = _mixture(decoder)
    if mixture is None:
        return None
    n_parameters = sum(parameter.numel() for parameter in mixture.experts.parameters())
    return n_parameters // (3 * mixture.gate.weight.shape[1] * mixture.gate.expert_loads.numel())


def shared_experts(decoder: Decoder) -> float | None:
    """Shared experts, each as wide as a whole routed one."""
    mixture = _mixture(decoder)
    if mixture is None:
        return None
    if mixture.shared_experts is None:
        return 0
    n_shared = mixture.shared_experts.gate_proj.out_features / decoder.config.moe_intermediate_size
    return int(n_shared) if n_shared.is_integer() else n_shared


def _attention(decoder: Decoder) -> LatentAttention:
    attention = decoder.layers[0].self_attn
    assert isinstance(attention, LatentAttention)
    return attention


def _dense_networks(decoder: Decoder) -> list[FeedForward]:
    networks = []
    for layer in decoder.layers:
        if not isinstance(layer.mlp, FeedForward):
            break
        networks.append(layer.mlp)
    return networks


def _mixture(decoder: Decoder) -> MixtureOfExperts | None:
    return next((module for module in decoder.layers.modules() if isinstance(module, MixtureOfExperts)), None)
