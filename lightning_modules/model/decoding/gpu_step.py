"""One step of decoding on a GPU: a layer is about a dozen kernels that follow each other closely, and ask no host."""

from typing import cast

import torch
from torch import Tensor

from lightning_modules.model.block_scaled import Matrix
from lightning_modules.model.cache import LatentCache
from lightning_modules.model.decoder import Block, Decoder, PredictionModule
from lightning_modules.model.decoding.gpu_attention import GpuAttention, Place
from lightning_modules.model.decoding.gpu_network import GpuDense, GpuMixture
from lightning_modules.model.dispatch import LocalDispatcher
from lightning_modules.model.experts import GroupedExperts, MixtureOfExperts, grouped_linear
from lightning_modules.model.kernels import few_rows
from lightning_modules.model.kernels.row_norm import normalise
from lightning_modules.model.kernels.step_inputs import step_inputs
from lightning_modules.model.rotary import inverse_frequencies
from lightning_modules.model.router import Router


class GpuStep:
    """`Decoder.extend_hidden` for a few new tokens a row, whose shapes depend on no length.

    Args:
        decoder: one that it `applies_to`. Its weights are read where they lie now.
    """

    def __init__(self, decoder: Decoder) -> None:
        self.norm = decoder.norm
        self.scores = decoder.lm_head
        self.begin = Beginning(decoder)
        self.layers = [halves_of(cast(Block, block)) for block in decoder.layers]
        modules = [cast(PredictionModule, module) for module in decoder.mtp]
        self.modules = [(module, *halves_of(module.block)) for module in modules]

    def __call__(self, tokens: Tensor, cache: LatentCache) -> Tensor:
        """Append `tokens` [B, T] to what `cache` holds: hidden states [B, T, D] behind the last norm."""
        hidden, place = self.begin(tokens, cache)
        for index, (attend, feed_forward) in enumerate(self.layers):
            hidden = feed_forward(attend(hidden, place, index))
        cache.advance(tokens.shape[1])
        return normalise(self.norm, hidden).view(*tokens.shape, -1)

    def ahead(self, depth: int, hidden: Tensor, tokens: Tensor, cache: LatentCache) -> Tensor:
        """See `RowStep`."""
        module, attend, feed_forward = self.modules[depth - 1]
        embedded, place = self.begin(tokens, cache)
        both = torch.cat((module.enorm(embedded), module.hnorm(hidden.flatten(0, 1))), dim=-1)
        joined = module.eh_proj(both)
        return module.norm(feed_forward(attend(joined, place, depth - 1))).view_as(hidden)

    def score(self, hidden: Tensor) -> Tensor:
        """See `RowStep`."""
        rows = hidden.flatten(0, -2)
        if len(rows) > few_rows.FEW_ROWS:
            return self.scores(hidden)
        return few_rows.multiply(rows, Matrix(self.scores.weight)).unflatten(0, hidden.shape[:-1])


class Beginning:
    """What new tokens begin with."""

    def __init__(self, decoder: Decoder) -> None:
        config, self.embedding = decoder.config, decoder.embed_tokens.weight
        self.frequencies = inverse_frequencies(config, self.embedding.device)
        self.rotary_scale = 1.0 if config.rope_scaling is None else config.rope_scaling.rotary_scale

    def __call__(self, tokens: Tensor, cache: LatentCache) -> tuple[Tensor, Place]:
        """The tokens' embeddings [N, D], and where they sit."""
        embedded, *angles = step_inputs(tokens, self.embedding, cache.lengths, self.frequencies, self.rotary_scale)
        return embedded, Place(cache, tokens.shape[1], *angles)


def applies_to(decoder: Decoder) -> bool:
    """Whether kernels know all that a decoder is made of, and are where it is."""
    config, weight = decoder.config, decoder.embed_tokens.weight
    has_pairs = config.qk_rope_head_dim > 0 and config.qk_rope_head_dim % 2 == config.qk_nope_head_dim % 2 == 0
    mixtures = [module for module in decoder.modules() if isinstance(module, MixtureOfExperts)]
    has_known_type = weight.is_cuda and weight.dtype in (torch.bfloat16, torch.float32)
    return has_pairs and has_known_type and all(map(_is_plain, mixtures))


def _is_plain(mixture: MixtureOfExperts) -> bool:
    """Whether all experts live here, in one stack that nothing special multiplies."""
    experts, is_local = mixture.experts, isinstance(mixture.dispatcher, LocalDispatcher)
    is_stack = isinstance(experts, GroupedExperts) and experts.grouped_mm is grouped_linear
    return is_stack and is_local and type(mixture.gate) is Router


def halves_of(block: Block) -> tuple[GpuAttention, GpuDense | GpuMixture]:
    """A block's step: attention, and what follows it."""
    attention = GpuAttention(block.self_attn, block.input_layernorm)
    if isinstance(block.mlp, MixtureOfExperts):
        return attention, GpuMixture(block.mlp, block.post_attention_layernorm)
    return attention, GpuDense(block.mlp, block.post_attention_layernorm)
