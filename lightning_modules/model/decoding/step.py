"""One step of decoding: a few new tokens of every row through the decoder."""

from collections.abc import Callable

from torch import Tensor

from lightning_modules.model.cache import LatentCache
from lightning_modules.model.decoder import Decoder
from lightning_modules.model.decoding import cpu_step

RowStep = Callable[[Tensor, LatentCache], Tensor]


def row_step(decoder: Decoder) -> RowStep:
    """`Decoder.extend_hidden`, for a few new tokens a row, in the fastest way that there is for these.

    Args:
        decoder: the model, in evaluation mode. What is prepared of its weights here does not follow them.

    Returns:
        A function of the tokens [B, T] that follow those a cache of these rows holds, and the cache, whose lengths move
        on by T; T is 1, or more where tokens were drafted. It returns hidden states [B, T, D], from which `lm_head`
        scores the next token. On a GPU it may neither wait for the device nor depend on the lengths otherwise than
        there: it is recorded once and replayed as rows grow.
    """
    if cpu_step.applies_to(decoder):
        return cpu_step.CpuStep(decoder)
    if decoder.embed_tokens.weight.is_cuda:
        # Its kernels need Triton, which is there where a GPU is.
        from lightning_modules.model.decoding import gpu_step

        if gpu_step.applies_to(decoder):
            return gpu_step.GpuStep(decoder)
    return decoder.extend_hidden
