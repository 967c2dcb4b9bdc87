"""Streaming generation over the latent cache."""

from collections.abc import Iterator

import torch
from torch import Tensor

from lightning_modules.model.cache import LatentCache
from lightning_modules.model.decoder import Decoder
from lightning_modules.model.sampling import SamplingConfig, sample


@torch.inference_mode()
def generate(
    decoder: Decoder,
    prompt: Tensor,
    max_new_tokens: int,
    sampling: SamplingConfig,
    allowed: Tensor | None = None,
    end_token: int | None = None,
    generator: torch.Generator | None = None,
) -> Iterator[Tensor]:
    """Yield new tokens [B] one step at a time.

    Args:
        decoder: the model, in evaluation mode.
        prompt: [B, T] tokens to continue, the beginning-of-document token first.
        max_new_tokens: how many steps to take at most.
        sampling: how tokens are drawn.
        allowed: [Q, V] masks of the tokens legal at each of Q positions that come round in turn, counted from the
            token after the first; None allows all.
        end_token: rows that drew it yield it ever after; generation stops once all have.
        generator: source of randomness; must live on the prompt's device.
    """
    batch_size, prompt_length = prompt.shape
    cache = LatentCache(
        decoder.config,
        batch_size,
        capacity=prompt_length + max_new_tokens,
        dtype=decoder.embed_tokens.weight.dtype,
        device=prompt.device,
    )
    ended = torch.zeros(batch_size, dtype=torch.bool, device=prompt.device)
    tokens = prompt
    for step in range(max_new_tokens):
        logits = decoder.extend(tokens, cache)[:, -1]
        if allowed is not None:
            position = (prompt_length - 1 + step) % allowed.shape[0]
            logits = logits.masked_fill(~allowed[position], float("-inf"))
        drawn = sample(logits, sampling, generator)
        if end_token is not None:
            drawn = drawn.masked_fill(ended, end_token)
            ended |= drawn == end_token
        yield drawn
        if ended.all():
            return
        tokens = drawn[:, None]
