"""Streaming generation over the latent cache."""

from collections.abc import Iterator

import torch
from torch import Tensor

from lightning_modules.model.cache import LatentCache
from lightning_modules.model.decoder import Decoder
from lightning_modules.model.decoding.engine import Engine
from lightning_modules.model.decoding.prefill import checked_lengths
from lightning_modules.model.sampling_configuration import SamplingConfig

# Steps that a GPU is given before the first of them is read, so that it never waits for the host.
N_STEPS_AHEAD = 3


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
        generator: source of the rows' seeds.
        prompt_lengths: [B] tokens of each prompt where they differ; the rest of a row is padding. The rows' new tokens
            are those that each would get alone.
        cache: what the prompts continue: an empty one, for instance in FP8, or one that holds the rows' beginnings.
            None allocates one in the activations' dtype.
        prefill_chunk_size: tokens of the prompt computed at a time; None takes all at once.
        context: tokens that the model has learnt to look back over: longer rows are seen through windows of so many
            (see `window_start`). None: rows look back over everything.

    Raises:
        ValueError: a prompt is empty, there is too little room, or `context` is below 2, or a cache or chunks come with
            it.
    """
    if max_new_tokens < 1:
        return
    lengths = checked_lengths(prompt, prompt_lengths)
    capacity = prompt.shape[1] + max_new_tokens if cache is None else cache.capacity
    engine = Engine(
        decoder,
        len(prompt),
        capacity,
        sampling,
        allowed,
        end_token,
        context=context,
        cache=cache,
        prefill_chunk_size=prefill_chunk_size,
    )
    prompts = [row[:length] for row, length in zip(prompt, lengths, strict=True)]
    engine.join(prompts, [max_new_tokens] * len(prompt), draw_seeds(len(prompt), generator))
    drawn = [0] * len(prompt)
    n_ahead = N_STEPS_AHEAD if prompt.is_cuda else 0
    for n_launched in range(1, max_new_tokens + n_ahead + 1):
        if n_launched <= max_new_tokens:
            engine.step()
        if n_launched <= n_ahead:
            continue
        for spoken in engine.read_step():
            (drawn[spoken.row],) = spoken.tokens
        # Rows that have ended go on with the token that they ended with.
        yield torch.tensor(drawn, device=prompt.device)
        if len(engine.free_rows) == len(prompt):
            return


def draw_seeds(n_rows: int, generator: torch.Generator | None = None) -> list[int]:
    """Seeds of rows, from a generator, or torch's own."""
    device = "cpu" if generator is None else generator.device
    return torch.randint(2**62, (n_rows,), generator=generator, device=device).tolist()
