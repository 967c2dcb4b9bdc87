"""One step of decoding: a few new tokens of every row through the decoder."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from lightning_modules.model.attention_inputs import cached_inputs
from lightning_modules.model.cache import LatentCache
from lightning_modules.model.decoder import Decoder
from lightning_modules.model.decoding import cpu_step


class RowStep(Protocol):
    """A few new tokens a row through the decoder and its prediction modules, in the fastest way there is for these.

    On a GPU nothing may wait for the device nor depend on the lengths otherwise than there: a step is recorded once and
    replayed as rows grow. What is prepared of weights does not follow them.
    """

    def __call__(self, tokens: Tensor, cache: LatentCache) -> Tensor:
        """`Decoder.extend_hidden`.

        Args:
            tokens: [B, T] what follows those that `cache` holds; T is 1, or more where tokens were drafted.
            cache: of these rows, whose lengths move on by T.

        Returns:
            Hidden states [B, T, D], from which `lm_head` scores the next token.
        """
        ...

    def ahead(self, depth: int, hidden: Tensor, tokens: Tensor, cache: LatentCache) -> Tensor:
        """`Decoder.extend_ahead`, over the positions that follow those in the modules' own cache.

        Args:
            depth: k, from 1.
            hidden: [B, T, D] what depth k - 1 made of these positions.
            tokens: [B, T] the token k further on than each position.
            cache: the modules' cache, a layer a depth, whose lengths stay.

        Returns:
            Hidden states [B, T, D], from which `lm_head` scores the token k + 1 further on.
        """
        ...

    def score(self, hidden: Tensor) -> Tensor:
        """`Decoder.lm_head`: the logits [..., V] of hidden states [..., D]."""
        ...


@dataclass(frozen=True)
class PlainStep:
    """The decoder's own way."""

    decoder: Decoder

    def __call__(self, tokens: Tensor, cache: LatentCache) -> Tensor:
        """See `RowStep`."""
        return self.decoder.extend_hidden(tokens, cache)

    def ahead(self, depth: int, hidden: Tensor, tokens: Tensor, cache: LatentCache) -> Tensor:
        """See `RowStep`."""
        inputs = cached_inputs(self.decoder.config, cache, tokens.shape[1])
        return self.decoder.extend_ahead(depth, hidden, tokens, inputs, cache)

    def score(self, hidden: Tensor) -> Tensor:
        """See `RowStep`."""
        return self.decoder.lm_head(hidden)


def row_step(decoder: Decoder) -> RowStep:
    """The step of a decoder, in evaluation mode, on the device where it is."""
    if cpu_step.applies_to(decoder):
        return cpu_step.CpuStep(decoder)
    if decoder.embed_tokens.weight.is_cuda:
        # Its kernels need Triton, which is there where a GPU is.
        from lightning_modules.model.decoding import gpu_step

        if gpu_step.applies_to(decoder):
            return gpu_step.GpuStep(decoder)
    return PlainStep(decoder)
