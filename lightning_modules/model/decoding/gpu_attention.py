"""Attention of a step's tokens on a GPU: what is around the latent cache, for few rows and for many.

Suffixes as in `attention.py`; N rows, one a token: B · T.
"""

from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.model.attention import LATENT_NORM_EPS, LatentAttention
from lightning_modules.model.block_scaled import matrix_of
from lightning_modules.model.cache import LatentCache
from lightning_modules.model.kernels import few_queries, few_rows
from lightning_modules.model.kernels.few_rows import Norm
from lightning_modules.model.kernels.latent_append import Remembered, append_latent
from lightning_modules.model.kernels.latent_attention import attend_latent
from lightning_modules.model.kernels.position import rotate_queries


class Place(NamedTuple):
    """Where a step's tokens sit.

    Attributes:
        cache: of all layers.
        n_new: T, tokens of a row.
        cos: FP32 [N, P / 2] of their angles.
        sin: the same.
    """

    cache: LatentCache
    n_new: int
    cos: Tensor
    sin: Tensor


class Queries(NamedTuple):
    """What attention begins with: queries [N, H, nope] and, rotated, [N, H, P]."""

    nope: Tensor
    rope: Tensor


class Projections(Protocol):
    """The products before and behind attention over the latents."""

    def project(self, hidden: Tensor, place: Place, layer: int) -> Queries:
        """Normalise `hidden` [N, D] and project it; the cache's `layer` holds the tokens afterwards."""
        ...

    def absorb(self, nope: Tensor) -> Tensor:
        """Queries [N, H, nope] times W_UK: [N, H, R]."""
        ...

    def add_output(self, context: Tensor, hidden: Tensor) -> Tensor:
        """`hidden` [N, D] plus the projected values of `context` [N, H, R]."""
        ...


class GpuAttention:
    """`hidden + self_attn(input_layernorm(hidden))`, of few new tokens a row over the cache.

    Args:
        attention: the layer's.
        norm: before it.
    """

    def __init__(self, attention: LatentAttention, norm: nn.RMSNorm) -> None:
        self.attention = attention
        self.few = FewRows(attention, norm)
        self.many = ManyRows(attention, norm)

    def __call__(self, hidden: Tensor, place: Place, layer: int) -> Tensor:
        """Map `hidden` [N, D] to [N, D], and store in the cache's `layer` what it is to hold of these tokens."""
        attention, cache, n_new = self.attention, place.cache, place.n_new
        way: Projections = self.few if hidden.shape[0] <= few_rows.FEW_ROWS else self.many
        scale = None if cache.latent_scale is None else cache.latent_scale[layer]
        projected = way.project(hidden, place, layer)
        context = attend_latent(
            way.absorb(projected.nope).unflatten(0, (-1, n_new)),
            projected.rope.unflatten(0, (-1, n_new)),
            cache.latent[layer],
            cache.rope_key[layer],
            cache.lengths,
            attention.scale,
            scale,
        )
        return way.add_output(context.flatten(0, 1), hidden)


class FewRows:
    """Products at the speed at which weights are read."""

    def __init__(self, attention: LatentAttention, norm: nn.RMSNorm) -> None:
        self.attention = attention
        self.norm = Norm.of(norm)
        self.latent = matrix_of(attention.kv_a_proj_with_mqa)
        self.up = matrix_of(attention.kv_b_proj)
        self.output = matrix_of(attention.o_proj)

    def project(self, hidden: Tensor, place: Place, layer: int) -> Queries:
        """See `Projections`."""
        attention = self.attention
        if attention.compresses_query:
            compressed = matrix_of(attention.q_a_proj)
            both = few_rows.multiply(hidden, compressed, beside=self.latent, norm=self.norm)
            x, latent = both.split((compressed.values.shape[0], self.latent.values.shape[0]), dim=1)
            matrix, norm = matrix_of(attention.q_b_proj), Norm.of(attention.q_a_layernorm)
        else:
            x, latent = hidden, few_rows.multiply(hidden, self.latent, norm=self.norm)
            matrix, norm = matrix_of(attention.q_proj), self.norm
        of_tokens = remembered(attention, latent, place, layer)
        return Queries(*few_queries.project_queries(x, matrix, norm, attention.nope_dim, of_tokens))

    def absorb(self, nope: Tensor) -> Tensor:
        """See `Projections`."""
        return few_queries.absorb_queries(nope, self.up, self.attention.latent_rank)

    def add_output(self, context: Tensor, hidden: Tensor) -> Tensor:
        """See `Projections`."""
        values = few_rows.raise_values(context, self.up, self.attention.nope_dim)
        return few_rows.multiply(values.flatten(1), self.output, residual=hidden)


class ManyRows:
    """Products by torch, whose libraries know many rows."""

    def __init__(self, attention: LatentAttention, norm: nn.RMSNorm) -> None:
        self.attention = attention
        self.norm = norm

    def project(self, hidden: Tensor, place: Place, layer: int) -> Queries:
        """See `Projections`."""
        attention = self.attention
        hidden = self.norm(hidden)
        append_latent(remembered(attention, F.linear(hidden, attention.kv_a_proj_with_mqa.weight), place, layer))
        if attention.compresses_query:
            compressed = attention.q_a_layernorm(F.linear(hidden, attention.q_a_proj.weight))
            query = F.linear(compressed, attention.q_b_proj.weight)
        else:
            query = F.linear(hidden, attention.q_proj.weight)
        query = query.unflatten(1, (attention.n_heads, -1))
        rope = rotate_queries(query, place.cos, place.sin, attention.interleaves)
        return Queries(query[..., : attention.nope_dim], rope)

    def absorb(self, nope: Tensor) -> Tensor:
        """See `Projections`."""
        return _multiply_heads(nope, self._up()[:, : self.attention.nope_dim])

    def add_output(self, context: Tensor, hidden: Tensor) -> Tensor:
        """See `Projections`."""
        values = _multiply_heads(context, self._up()[:, self.attention.nope_dim :].mT)
        return torch.addmm(hidden, values.flatten(1), self.attention.o_proj.weight.mT)

    def _up(self) -> Tensor:
        """W_UK above W_UV of every head [H, nope + value, R]."""
        return self.attention.kv_b_proj.weight.unflatten(0, (self.attention.n_heads, -1))


def remembered(attention: LatentAttention, projected: Tensor, place: Place, layer: int) -> Remembered:
    """Raw latents and keys `projected` [N, R + P], on their way into the cache's `layer`."""
    cache, n_new, cos, sin = place
    return Remembered(
        projected.unflatten(0, (-1, n_new)),
        attention.kv_a_layernorm.weight,
        cos,
        sin,
        cache.latent[layer],
        cache.rope_key[layer],
        cache.lengths,
        LATENT_NORM_EPS,
        attention.interleaves,
        None if cache.latent_scale is None else cache.latent_scale[layer],
    )


def _multiply_heads(rows: Tensor, matrices: Tensor) -> Tensor:
    """Rows [N, H, K] by each head's matrix [H, K, C]: [N, H, C], contiguous."""
    product = rows.new_empty(*rows.shape[:2], matrices.shape[2])
    torch.bmm(rows.transpose(0, 1), matrices, out=product.transpose(0, 1))
    return product
