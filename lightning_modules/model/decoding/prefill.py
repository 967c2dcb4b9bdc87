"""Prompts on their way into a latent cache."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from lightning_modules.model.cache import LatentCache
from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.model.decoder import Decoder
from lightning_modules.model.decoding.prompts import prompt_reader


def extend_in_chunks(
    decoder: Decoder, tokens: Tensor, cache: LatentCache, chunk_size: int | None = None
) -> Iterator[Tensor]:
    """Append `tokens` [B, T] to `cache`, at most `chunk_size` of a row at a time, and yield their hidden states.

    Raises:
        ValueError: when chunks are empty.
    """
    reader = prompt_reader(decoder)
    for chunk in _chunks(tokens, chunk_size):
        yield reader.extend(chunk, cache)


def remember(decoder: Decoder, tokens: Tensor, cache: LatentCache, chunk_size: int | None = None) -> None:
    """Append `tokens` [B, T] to `cache`, at most `chunk_size` of a row at a time.

    Raises:
        ValueError: when chunks are empty.
    """
    reader = prompt_reader(decoder)
    for chunk in _chunks(tokens, chunk_size):
        reader.remember(chunk, cache)


def _chunks(tokens: Tensor, chunk_size: int | None) -> Iterator[Tensor]:
    """Pieces of `tokens` [B, T], of at most so many a row, none of them empty."""
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"chunk_size is {chunk_size}; it must be at least 1, or None for one chunk.")
    yield from (chunk for chunk in tokens.split(chunk_size or max(tokens.shape[1], 1), dim=1) if chunk.shape[1])


@contextmanager
def rows_of(
    cache: LatentCache, config: DecoderConfig, rows: Sequence[int], n_held: Sequence[int], width: int
) -> Iterator[LatentCache]:
    """A cache to which up to `width` tokens of the numbered rows are appended, and which `cache` takes over at the end.

    Rows that hold tokens already, `n_held` each, have to be all there are: their latents stay where they are.
    """
    if list(rows) == list(range(cache.latent.shape[1])):
        cache.hold(torch.tensor(n_held), max(n_held))
        yield cache
        return
    part = cache.like(config, len(rows), width)
    yield part
    cache.replace_rows(torch.tensor(rows, device=cache.lengths.device), part)


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
        ValueError: when a prompt is empty or longer than its row, or chunks are empty.
    """
    lengths = checked_lengths(prompt, prompt_lengths)
    held, ends = cache.lengths.clone(), torch.tensor(lengths, device=prompt.device)
    reader = prompt_reader(decoder)
    last = prompt.new_empty(prompt.shape[0], decoder.config.hidden_size, dtype=decoder.embed_tokens.weight.dtype)
    start = 0
    for chunk in _chunks(prompt, chunk_size):
        stop = start + chunk.shape[1]
        if any(start < length <= stop for length in lengths):
            hidden = reader.extend_to(chunk, cache, (ends - 1 - start).clamp(0, chunk.shape[1] - 1))
            last = torch.where(((ends > start) & (ends <= stop))[:, None], hidden, last)
        else:
            reader.remember(chunk, cache)
        start = stop
    if prompt_lengths is not None:
        cache.truncate(held + ends)
    return decoder.lm_head(last)


def checked_lengths(prompt: Tensor, prompt_lengths: Tensor | None) -> list[int]:
    """How many tokens of each row of `prompt` [B, T] are real.

    Raises:
        ValueError: when a prompt is empty or longer than its row.
    """
    batch_size, width = prompt.shape
    lengths = [width] * batch_size if prompt_lengths is None else prompt_lengths.tolist()
    if len(lengths) != batch_size or not all(1 <= length <= width for length in lengths):
        raise ValueError(
            f"prompt_lengths is {lengths} for prompts of shape {[batch_size, width]}; every row needs a length from 1 "
            f"to {width}: start speech from nothing with the beginning-of-document token."
        )
    return lengths
