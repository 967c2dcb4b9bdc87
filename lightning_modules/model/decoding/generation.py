"""Streaming generation over the latent cache."""

from collections import deque
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from lightning_modules.model.cache import LatentCache
from lightning_modules.model.decoder import Decoder
from lightning_modules.model.decoding.engine import Engine
from lightning_modules.model.decoding.prefill import checked_lengths
from lightning_modules.model.decoding.speculation import Acceptance
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
    yield from _columns(engine, prompt, lengths, max_new_tokens, generator)


def draw_seeds(n_rows: int, generator: torch.Generator | None = None) -> list[int]:
    """Seeds of rows, from a generator, or torch's own."""
    device = "cpu" if generator is None else generator.device
    return torch.randint(2**62, (n_rows,), generator=generator, device=device).tolist()


def steps_ahead(device: torch.device) -> int:
    """Steps that a device is given before the first of them is read."""
    return N_STEPS_AHEAD if device.type == "cuda" else 0


def _columns(
    engine: Engine, prompt: Tensor, lengths: Sequence[int], max_new_tokens: int, generator: torch.Generator | None
) -> Iterator[Tensor]:
    """What all rows of `prompt` [B, T], `lengths` long, say side by side [B], until all have ended.

    Those that have go on with the token they ended with. Rows that are ahead of others wait for them.
    """
    n_rows, device = len(prompt), prompt.device
    prompts = [row[:length] for row, length in zip(prompt, lengths, strict=True)]
    engine.join(prompts, [max_new_tokens] * n_rows, draw_seeds(n_rows, generator))
    said = [deque[int]() for _ in range(n_rows)]
    column, speaking = [0] * n_rows, set(range(n_rows))
    while speaking:
        for _ in range(engine.n_unread, steps_ahead(device) + 1):
            engine.step()
        for row, tokens, has_ended in engine.read_step():
            said[row].extend(tokens)
            if has_ended:
                speaking.remove(row)
        while any(said) and all(said[row] for row in speaking):
            column = [tokens.popleft() if tokens else last for tokens, last in zip(said, column, strict=True)]
            yield torch.tensor(column, device=device)


def generate_speculatively(
    decoder: Decoder,
    prompt: Tensor,
    max_new_tokens: int,
    sampling: SamplingConfig,
    allowed: Tensor | None = None,
    end_token: int | None = None,
    generator: torch.Generator | None = None,
    acceptance: Acceptance | None = None,
    fp8_cache: bool = False,
    prompt_lengths: Tensor | None = None,
) -> Iterator[Tensor]:
    """Yield new tokens [B] one step at a time, as `generate` does, from fewer passes of the decoder.

    Greedy tokens equal those of `generate` as far as the logits do: verification adds up the same numbers in another
    order, so only where the two best logits differ by less than that rounding (about 1e-6 in FP32, 1e-2 in BF16) may
    another token be taken. Sampled tokens have the same distribution, but not the same draws from a seed.

    Rows of a batch accept different numbers of tokens, and what is yielded waits for the slowest: speculation buys
    latency, and is best for one row.

    Args:
        decoder: the model with at least one multi-token-prediction module, in evaluation mode.
        prompt: [B, T] tokens to continue, the beginning-of-document token first.
        max_new_tokens: how many tokens of a row to yield at most.
        sampling: how tokens are drawn.
        allowed: [Q, V] masks of the tokens legal at each of Q positions that come round in turn (see `generate`);
            drafts keep to them too.
        end_token: rows that drew it yield it ever after; generation stops once all have.
        generator: source of the rows' seeds.
        acceptance: counts rounds, drafted and accepted tokens as generation goes on.
        fp8_cache: keep the latents in FP8.
        prompt_lengths: [B] tokens of each prompt where they differ.

    Raises:
        ValueError: when the decoder cannot draft, or a prompt is empty.
    """
    if max_new_tokens < 1:
        return
    lengths = checked_lengths(prompt, prompt_lengths)
    engine = Engine(
        decoder,
        len(prompt),
        prompt.shape[1] + max_new_tokens,
        sampling,
        allowed,
        end_token,
        fp8_cache,
        acceptance=Acceptance() if acceptance is None else acceptance,
    )
    yield from _columns(engine, prompt, lengths, max_new_tokens, generator)
