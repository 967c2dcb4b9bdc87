"""Streaming generation over the latent cache."""

from collections.abc import Iterator

import torch
from torch import Tensor

from lightning_modules.model.cache import LatentCache
from lightning_modules.model.decoder import Decoder
from lightning_modules.model.sampling import allow, sample
from lightning_modules.model.sampling_configuration import SamplingConfig
from lightning_modules.model.sliding import window_start


@torch.inference_mode()
def prefill(
    decoder: Decoder,
    prompt: Tensor,
    cache: LatentCache,
    chunk_size: int | None = None,
    prompt_lengths: Tensor | None = None,
) -> Tensor:
    """Append whole prompts to `cache`, a chunk at a time, and score the token after each prompt's last one.

    Args:
        decoder: the model, in evaluation mode.
        prompt: [B, T] tokens; shorter rows are padded on the right with any token.
        cache: what the prompts continue; afterwards it holds each prompt without its padding.
        chunk_size: tokens of a row computed at a time, which bounds the memory that expanded attention takes; None
            takes all at once.
        prompt_lengths: [B] tokens of each row that are real; None: all are.

    Returns:
        Logits [B, V].

    Raises:
        ValueError: when a prompt is empty or longer than its row, or chunks are.
    """
    batch_size, width = prompt.shape
    lengths = torch.full((batch_size,), width) if prompt_lengths is None else prompt_lengths
    lengths = lengths.to(prompt.device)
    if lengths.shape != (batch_size,) or not width or int(lengths.min()) < 1 or int(lengths.max()) > width:
        raise ValueError(
            f"prompt_lengths is {lengths.tolist()} for prompts of shape {list(prompt.shape)}; every row needs a length "
            f"from 1 to {width}: start speech from nothing with the beginning-of-document token."
        )
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"chunk_size is {chunk_size}; it must be at least 1, or None for one chunk.")
    held = cache.lengths.clone()
    last = prompt.new_empty(batch_size, decoder.config.hidden_size, dtype=decoder.embed_tokens.weight.dtype)
    for start in range(0, width, chunk_size or width):
        hidden = decoder.extend_hidden(prompt[:, start : start + (chunk_size or width)], cache)
        index = lengths - 1 - start
        ends_here = ((index >= 0) & (index < hidden.shape[1]))[:, None]
        candidates = hidden[torch.arange(batch_size, device=prompt.device), index.clamp(0, hidden.shape[1] - 1)]
        last = torch.where(ends_here, candidates, last)
    if prompt_lengths is not None:
        cache.truncate(held + lengths)
    return decoder.lm_head(last)


@torch.inference_mode()
def generate(
    decoder: Decoder,
    prompt: Tensor,
    max_new_tokens: int,
    sampling: SamplingConfig,
    allowed: Tensor | None = None,
    end_token: int | None = None,
    generator: torch.Generator | None = None,
    prompt_lengths: Tensor | None = None,
    cache: LatentCache | None = None,
    prefill_chunk_size: int | None = None,
    context: int | None = None,
) -> Iterator[Tensor]:
    """Yield new tokens [B] one step at a time.

    Args:
        decoder: the model, in evaluation mode.
        prompt: [B, T] tokens to continue, the beginning-of-document token first.
        max_new_tokens: how many steps to take at most.
        sampling: how tokens are drawn.
        allowed: [Q, V] masks of the tokens legal at each of Q positions that come round in turn, counted from the
            token after the first; None allows all. Every row counts from its own prompt.
        end_token: rows that drew it yield it ever after; generation stops once all have.
        generator: source of randomness; must live on the prompt's device.
        prompt_lengths: [B] tokens of each prompt where they differ; the rest of a row is padding. The rows' new tokens
            are those that each would get alone.
        cache: what the prompts continue: an empty one, for instance in FP8, or one that holds the rows' beginnings.
            None allocates one in the activations' dtype.
        prefill_chunk_size: tokens of the prompt computed at a time; None takes all at once.
        context: tokens that the model has learnt to look back over: longer rows are seen through windows of so many
            (see `window_start`). None: rows look back over everything.

    Raises:
        ValueError: `context` is below 2, or a cache or chunks come with it.
    """
    if max_new_tokens < 1:
        return
    if context is not None:
        if context < 2 or cache is not None or prefill_chunk_size is not None:
            raise ValueError(f"context is {context}; it takes 2 or more, and neither a cache nor chunks beside it.")
        yield from _generate_sliding(
            decoder, prompt, max_new_tokens, sampling, allowed, end_token, generator, prompt_lengths, context
        )
        return
    batch_size, prompt_length = prompt.shape
    if cache is None:
        cache = LatentCache(
            decoder.config,
            batch_size,
            capacity=prompt_length + max_new_tokens,
            dtype=decoder.embed_tokens.weight.dtype,
            device=prompt.device,
        )
    ended = torch.zeros(batch_size, dtype=torch.bool, device=prompt.device)
    logits = prefill(decoder, prompt, cache, prefill_chunk_size, prompt_lengths)
    for step in range(max_new_tokens):
        drawn = sample(allow(logits, allowed, cache.lengths), sampling, generator)
        if end_token is not None:
            drawn = drawn.masked_fill(ended, end_token)
            ended |= drawn == end_token
        yield drawn
        if step + 1 == max_new_tokens or ended.all():
            return
        logits = decoder.extend(drawn[:, None], cache)[:, -1]


def _generate_sliding(
    decoder: Decoder,
    prompt: Tensor,
    max_new_tokens: int,
    sampling: SamplingConfig,
    allowed: Tensor | None,
    end_token: int | None,
    generator: torch.Generator | None,
    prompt_lengths: Tensor | None,
    context: int,
) -> Iterator[Tensor]:
    """`generate` where rows forget: the cache never holds more than `context` tokens of a row."""
    batch_size, width = prompt.shape
    rows = torch.arange(batch_size, device=prompt.device)
    lengths = torch.full((batch_size,), width) if prompt_lengths is None else prompt_lengths
    lengths = lengths.to(prompt.device)
    tokens = torch.cat((prompt, prompt.new_zeros(batch_size, max_new_tokens)), dim=1)
    cache = LatentCache(decoder.config, batch_size, context + 1, decoder.embed_tokens.weight.dtype, prompt.device)
    seen, n_seen = _from(window_start(lengths - 1, context), tokens, lengths)
    logits = prefill(decoder, seen, cache, prompt_lengths=n_seen)
    ended = torch.zeros(batch_size, dtype=torch.bool, device=prompt.device)
    for step in range(max_new_tokens):
        drawn = sample(allow(logits, allowed, lengths), sampling, generator)
        if end_token is not None:
            drawn = drawn.masked_fill(ended, end_token)
            ended |= drawn == end_token
        yield drawn
        if step + 1 == max_new_tokens or ended.all():
            return
        if cache.longest >= context:
            full = rows[cache.lengths >= context]
            seen, n_seen = _from(window_start(lengths[full], context), tokens[full], lengths[full])
            moved = cache.like(decoder.config, len(full), seen.shape[1])
            prefill(decoder, seen, moved, prompt_lengths=n_seen)
            cache.replace_rows(full, moved)
        tokens[rows, lengths] = drawn
        lengths = lengths + 1
        logits = decoder.extend(drawn[:, None], cache)[:, -1]


def _from(starts: Tensor, tokens: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """What rows of `tokens` [B, T], `lengths` [B] long, hold from `starts` [B] on, and how many each."""
    kept = lengths - starts
    index = starts[:, None] + torch.arange(int(kept.max()), device=tokens.device)
    return tokens.gather(1, index.clamp_max(tokens.shape[1] - 1)), kept
