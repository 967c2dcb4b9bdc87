"""A few new tokens a row through the decoder on a CPU, where calls cost more than what they compute.

The sums are those of `Decoder.extend_hidden` in another order. Matrices that follow each other are multiplied once,
beforehand, where that makes them no larger; heads are rows of one product with the latents, which are never copied; and
nothing is padded or masked that need not be.

Suffixes: B rows, T new tokens of each, N = B · T, S cached tokens, H heads, R latent rank, P rotary dimensions,
D hidden, I intermediate, K chosen experts a token.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_modules.model import by_hand
from lightning_modules.model.attention import LatentAttention
from lightning_modules.model.cache import LatentCache
from lightning_modules.model.decoder import Block, Decoder, PredictionModule
from lightning_modules.model.dispatch import LocalDispatcher
from lightning_modules.model.experts import FeedForward, GroupedExperts, MixtureOfExperts, grouped_linear
from lightning_modules.model.norm import RMSNorm
from lightning_modules.model.rotary import rotary_cos_sin, turn
from lightning_modules.model.router import HierarchicalRouter


class Places(NamedTuple):
    """Where a step's tokens stand, for all layers.

    Attributes:
        angles: rotary ones [N, 1, P / 2], as complex numbers.
        start: the place of all rows' first new token; None where it differs.
        unseen: which cached tokens a new one does not see [B, T, 1, S]; None where it sees all.
    """

    angles: Tensor
    start: int | None
    unseen: Tensor | None


class CpuStep:
    """The decoder's step, prepared: it has to be built anew when weights change.

    Args:
        decoder: one that `applies_to` knows.
    """

    def __init__(self, decoder: Decoder) -> None:
        self._config = decoder.config
        self._embedding = decoder.embed_tokens.weight.detach()
        blocks = [block for block in decoder.layers if isinstance(block, Block)]
        self._layers = [(_Attention(block), _feed_forward(block)) for block in blocks]
        modules = [module for module in decoder.mtp if isinstance(module, PredictionModule)]
        self._modules = [(module, _Attention(module.block), _feed_forward(module.block)) for module in modules]
        self._norm = _Norm(decoder.norm)
        self._scores = decoder.lm_head
        self._angles = torch.empty(0)

    def __call__(self, tokens: Tensor, cache: LatentCache) -> Tensor:
        """Append `tokens` [B, T] to what `cache` holds, and return their hidden states [B, T, D]."""
        places = self._places(cache, tokens.shape[1])
        hidden = F.embedding(tokens.flatten(), self._embedding)
        for layer, (attention, feed_forward) in enumerate(self._layers):
            hidden = feed_forward(attention(hidden, places, cache, layer))
        cache.advance(tokens.shape[1])
        return self._norm(hidden).view(*tokens.shape, -1)

    def ahead(self, depth: int, hidden: Tensor, tokens: Tensor, cache: LatentCache) -> Tensor:
        """See `RowStep`."""
        module, attention, feed_forward = self._modules[depth - 1]
        places = self._places(cache, tokens.shape[1])
        embedded = F.embedding(tokens, self._embedding)
        joined = module.eh_proj(torch.cat((module.enorm(embedded), module.hnorm(hidden)), dim=-1))
        output = feed_forward(attention(joined.flatten(0, 1), places, cache, depth - 1))
        return module.norm(output).view_as(hidden)

    def score(self, hidden: Tensor) -> Tensor:
        """See `RowStep`."""
        return self._scores(hidden)

    def _places(self, cache: LatentCache, n_tokens: int) -> Places:
        positions, lengths = cache.positions(n_tokens), cache.lengths.tolist()
        angles = self._angles_up_to(max(lengths) + n_tokens)[positions.flatten()]
        start = lengths[0] if len(set(lengths)) == 1 and cache.latent_scale is None else None
        if start is not None and n_tokens == 1:
            return Places(angles, start, None)
        keys = torch.arange(cache.extent(n_tokens) if start is None else start + n_tokens)
        return Places(angles, start, (keys > positions[:, :, None])[:, :, None])

    def _angles_up_to(self, n_positions: int) -> Tensor:
        """The angles of so many positions, or more [·, 1, P / 2]."""
        if len(self._angles) < n_positions:
            positions = torch.arange(2 * n_positions)[:, None]
            self._angles = torch.complex(*rotary_cos_sin(positions, self._config))
        return self._angles


def applies_to(decoder: Decoder) -> bool:
    """Whether the decoder lies whole on a CPU, in a type that may be summed in, and its attention can be absorbed."""
    parameters = (parameter.detach() for parameter in decoder.parameters())
    return decoder.config.qk_rope_head_dim > 0 and all(map(by_hand.applies_to, parameters))


class _Norm:
    """√D · w · x / √(Σ x² + D · eps): the root mean square in four calls."""

    def __init__(self, norm: RMSNorm) -> None:
        assert norm.eps is not None
        width = norm.weight.numel()
        self._weight = norm.weight.detach() * width**0.5
        self._floor = torch.tensor((width * norm.eps) ** 0.5, dtype=norm.weight.dtype)

    def __call__(self, x: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        return (x / torch.hypot(length, self._floor)).mul_(self._weight)


class _Attention:
    """Absorbed latent attention behind its norm, added to what came in."""

    def __init__(self, block: Block) -> None:
        module = block.self_attn
        self._norm = _Norm(block.input_layernorm)
        self._latent_norm = _Norm(module.kv_a_layernorm)
        self._n_heads, self._rank, self._rope_dim = module.n_heads, module.latent_rank, module.rope_dim
        self._interleaves = module.interleaves
        latent_down = module.kv_a_proj_with_mqa.weight.detach()
        if module.compresses_query:
            self._query_norm: _Norm | None = _Norm(module.q_a_layernorm)
            self._down = torch.cat((module.q_a_proj.weight.detach(), latent_down))
            query_up = module.q_b_proj.weight.detach()
        else:
            self._query_norm, self._down, query_up = None, latent_down, module.q_proj.weight.detach()
        self._query_up, self._key_up = _joined_query(module, query_up)
        self._output, self._value_up = _joined_output(module)

    def __call__(self, hidden: Tensor, places: Places, cache: LatentCache, layer: int) -> Tensor:
        """Map [N, D] to [N, D]."""
        n_rows, n_heads = cache.lengths.shape[0], self._n_heads
        query, latent, key = self._projected(self._norm(hidden))
        rotary = torch.cat((query[..., self._rank :], key[:, None]), dim=1)
        turned = turn(rotary, places.angles, self._interleaves)
        query_latent = query[..., : self._rank].reshape(n_rows, -1, self._rank)
        query_rope = turned[:, :n_heads].reshape(n_rows, -1, self._rope_dim)
        latent, key = latent.view(n_rows, -1, self._rank), turned[:, n_heads].view(n_rows, -1, self._rope_dim)
        latents, keys = _append(cache, layer, latent, key, places)
        scores = torch.bmm(query_rope, keys.mT).baddbmm_(query_latent, latents.mT)
        if places.unseen is not None:
            scores.view(n_rows, -1, n_heads, scores.shape[-1]).masked_fill_(places.unseen, float("-inf"))
        context = torch.bmm(scores.softmax(dim=-1), latents).view(-1, n_heads, self._rank)
        if self._value_up is not None:
            context = _by_head(context, self._value_up)
        return torch.addmm(hidden, context.reshape(len(hidden), -1), self._output)

    def _projected(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries [N, H, R + P], latents [N, R] and keys [N, P], the rotary parts not yet rotated."""
        down, width = F.linear(x, self._down), self._rank + self._rope_dim
        latent, key = down[:, -width:].split((self._rank, self._rope_dim), dim=-1)
        query = x if self._query_norm is None else self._query_norm(down[:, :-width])
        query = F.linear(query, self._query_up).view(len(x), self._n_heads, -1)
        if self._key_up is not None:
            query = _by_head(query, self._key_up)
        return query, self._latent_norm(latent), key


class _Dense:
    """SwiGLU behind its norm, added to what came in."""

    def __init__(self, block: Block) -> None:
        assert isinstance(block.mlp, FeedForward)
        self._norm = _Norm(block.post_attention_layernorm)
        self._network = _Network(block.mlp)

    def __call__(self, hidden: Tensor) -> Tensor:
        """Map [N, D] to [N, D]."""
        return self._network.added_to(hidden, self._norm(hidden))


class _Network:
    """The matrices of a feed-forward network."""

    def __init__(self, network: FeedForward) -> None:
        self._gate, self._up = network.gate_proj.weight.detach(), network.up_proj.weight.detach()
        self._down = network.down_proj.weight.detach().mT

    def added_to(self, hidden: Tensor, x: Tensor) -> Tensor:
        """`hidden` [N, D] and what the network makes of `x` [N, D]."""
        return torch.addmm(hidden, F.silu(F.linear(x, self._gate)).mul_(F.linear(x, self._up)), self._down)


class _Mixture:
    """A mixture of experts behind its norm, added to what came in: only the chosen experts' matrices are read."""

    def __init__(self, block: Block) -> None:
        mixture = block.mlp
        assert isinstance(mixture, MixtureOfExperts)
        assert isinstance(mixture.experts, GroupedExperts)
        self._norm = _Norm(block.post_attention_layernorm)
        self._router = mixture.gate
        self._scores = mixture.gate.weight.detach()
        self._shared = None if mixture.shared_experts is None else _Network(mixture.shared_experts)
        self._gate_up, self._down = mixture.experts.gate_up_proj.detach().mT, mixture.experts.down_proj.detach().mT
        self._each = list(zip(self._gate_up.unbind(), self._down.unbind(), strict=True))

    def __call__(self, hidden: Tensor) -> Tensor:
        """Map [N, D] to [N, D]."""
        x = self._norm(hidden)
        routing = self._router.route(F.linear(x, self._scores))
        output = hidden.clone() if self._shared is None else self._shared.added_to(hidden, x)
        add = self._add_one_by_one if len(x) == 1 else self._add_grouped
        add(output, x, routing.indices, routing.gates)
        return output

    def _add_one_by_one(self, output: Tensor, x: Tensor, indices: Tensor, gates: Tensor) -> None:
        """Add to the one row of `output` what its experts make of `x`, both [1, D]."""
        for expert, gate in zip(indices[0].tolist(), gates.unbind(1), strict=True):
            gate_up, down = self._each[expert]
            output.addmm_(_swiglu(x @ gate_up).mul_(gate), down)

    def _add_grouped(self, output: Tensor, x: Tensor, indices: Tensor, gates: Tensor) -> None:
        """The same for many rows [N, D], which are sorted by expert."""
        experts, order = indices.flatten().sort()
        tokens = order // indices.shape[1]
        offsets = torch.searchsorted(experts, torch.arange(len(self._each)), right=True).to(torch.int32)
        weighted = _swiglu(F.grouped_mm(x[tokens], self._gate_up, offs=offsets)).mul_(gates.flatten()[order, None])
        output.index_add_(0, tokens, F.grouped_mm(weighted, self._down, offs=offsets))


def _feed_forward(block: Block) -> Callable[[Tensor], Tensor]:
    """What a block has behind its attention; as it is where nothing is gained."""
    mlp = block.mlp
    if isinstance(mlp, FeedForward):
        return _Dense(block)
    fits = (
        isinstance(mlp.experts, GroupedExperts)
        and mlp.experts.grouped_mm is grouped_linear
        and isinstance(mlp.dispatcher, LocalDispatcher)
        and not isinstance(mlp.gate, HierarchicalRouter)
    )
    if fits:
        return _Mixture(block)
    return lambda hidden: hidden + mlp(block.post_attention_layernorm(hidden))[0]


def _swiglu(gate_up: Tensor) -> Tensor:
    """silu(gate) · up: [N, 2I] gives [N, I]."""
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate).mul_(up)


def _append(cache: LatentCache, layer: int, latent: Tensor, key: Tensor, places: Places) -> tuple[Tensor, Tensor]:
    """`LatentCache.append`, which takes fewer calls where all rows are equally long."""
    if places.start is None:
        return cache.append(layer, latent, key)
    end = places.start + latent.shape[1]
    latents, keys = cache.latent[layer, :, :end], cache.rope_key[layer, :, :end]
    latents[:, places.start :], keys[:, places.start :] = latent, key
    return latents, keys


def _by_head(x: Tensor, matrices: Tensor) -> Tensor:
    """Multiply every head's numbers [N, H, I] by its own matrix [H, I, O]."""
    return torch.bmm(x.transpose(0, 1), matrices).transpose(0, 1)


def _joined_query(module: LatentAttention, query_up: Tensor) -> tuple[Tensor, Tensor | None]:
    """What makes scaled queries [N, H, R + P] for latents and keys: one matrix, or one and another by head."""
    n_heads, nope, rank, rope = module.n_heads, module.nope_dim, module.latent_rank, module.rope_dim
    key_up, _ = _up_projections(module)
    by_head = query_up.new_zeros(n_heads, nope + rope, rank + rope)
    by_head[:, :nope, :rank] = key_up * module.scale
    by_head[:, nope:, rank:] = torch.eye(rope) * module.scale
    if n_heads * (rank + rope) * query_up.shape[1] > by_head.numel() + query_up.numel():
        return query_up, by_head
    return (by_head.mT @ query_up.unflatten(0, (n_heads, -1))).flatten(0, 1), None


def _joined_output(module: LatentAttention) -> tuple[Tensor, Tensor | None]:
    """What makes hidden states of latent contexts: one matrix [H · R, D], or one [H · V, D] and another by head."""
    _, value_up = _up_projections(module)
    output = module.o_proj.weight.detach().mT
    if module.n_heads * module.latent_rank * output.shape[1] > value_up.numel() + output.numel():
        return output, value_up.mT
    return (value_up.mT @ output.unflatten(0, (module.n_heads, -1))).flatten(0, 1), None


def _up_projections(module: LatentAttention) -> tuple[Tensor, ...]:
    """W_UK [H, nope, R] and W_UV [H, V, R]."""
    up = module.kv_b_proj.weight.detach().unflatten(0, (module.n_heads, -1))
    return up.split((module.nope_dim, module.value_dim), dim=1)
