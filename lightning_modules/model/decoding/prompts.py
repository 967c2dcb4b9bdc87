"""Many new tokens of every row through the decoder."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from lightning_modules.model.cache import LatentCache
from lightning_modules.model.decoder import Decoder


class PromptReader(Protocol):
    """Appends tokens [B, T] to a cache, whose lengths move on by T, and computes no more of them than is asked for."""

    def extend(self, tokens: Tensor, cache: LatentCache) -> Tensor:
        """`Decoder.extend_hidden`: hidden states [B, T, D]."""
        ...

    def remember(self, tokens: Tensor, cache: LatentCache) -> None:
        """Nothing but the cache is asked for."""
        ...

    def extend_to(self, tokens: Tensor, cache: LatentCache, index: Tensor) -> Tensor:
        """Hidden states [B, D] of one token a row, that with `index` [B]."""
        ...


@dataclass(frozen=True)
class PlainReader:
    """The decoder's own way."""

    decoder: Decoder

    def extend(self, tokens: Tensor, cache: LatentCache) -> Tensor:
        """See `PromptReader`."""
        return self.decoder.extend_hidden(tokens, cache)

    def remember(self, tokens: Tensor, cache: LatentCache) -> None:
        """See `PromptReader`."""
        self.decoder.extend_hidden(tokens, cache)

    def extend_to(self, tokens: Tensor, cache: LatentCache, index: Tensor) -> Tensor:
        """See `PromptReader`."""
        return one_a_row(self.decoder.extend_hidden(tokens, cache), index)


def prompt_reader(decoder: Decoder) -> PromptReader:
    """What reads prompts for a decoder, in evaluation mode, on the device where it is."""
    if decoder.embed_tokens.weight.is_cuda:
        # Its kernels need Triton, which is there where a GPU is.
        from lightning_modules.model.decoding import gpu_prompts

        if gpu_prompts.applies_to(decoder):
            return gpu_prompts.GpuReader(decoder)
    return PlainReader(decoder)


def one_a_row(hidden: Tensor, index: Tensor) -> Tensor:
    """Of `hidden` [B, T, D], the vectors [B, D] with `index` [B]."""
    return hidden[torch.arange(hidden.shape[0], device=hidden.device), index]
