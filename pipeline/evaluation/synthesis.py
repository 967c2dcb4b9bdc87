"""Speech that a decoder makes up, as codes."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from tqdm import tqdm

from lightning_modules.model.decoder import Decoder
from lightning_modules.model.decoding.engine import Engine
from lightning_modules.model.decoding.generation import draw_seeds, steps_ahead
from lightning_modules.model.sampling_configuration import SamplingConfig
from pipeline.evaluation.cores import on_all_cores
from pipeline.evaluation.ranks import share
from pipeline.tokens.vocabulary import Special, Vocabulary


@dataclass(frozen=True, eq=False)
class Request:
    """What is to be continued.

    Attributes:
        opening: its tokens [T].
        n_new: how many are added at most.
        seed: of its random numbers.
    """

    opening: Tensor
    n_new: int
    seed: int


def opening_tokens(vocabulary: Vocabulary, codes: Tensor) -> Tensor:
    """The tokens [1 + f * Q] that an utterance opens with: the beginning-of-document token, and its codes [f, Q]."""
    return torch.cat((torch.tensor([Special.BOS]), vocabulary.codes_to_tokens(codes)))


def generate_codes(
    decoder: Decoder,
    vocabulary: Vocabulary,
    prompts: Sequence[Tensor],
    n_frames: int,
    sampling: SamplingConfig,
    seed: int,
    batch_size: int,
    context: int | None = None,
) -> list[Tensor]:
    """Continue every prompt until its utterance ends, or `n_frames` frames are reached.

    Args:
        decoder: the model, in evaluation mode, on whichever device.
        vocabulary: how codes become tokens.
        prompts: codes [f, Q] to continue, of any lengths f; with f = 0, speech starts from nothing.
        n_frames: frames of an utterance at most, its prompt included.
        sampling: how tokens are drawn.
        seed: the same seed gives the same codes, on any device as far as rounding goes.
        batch_size: utterances generated side by side.
        context: tokens that the model has learnt to look back over, as `generate` takes it.

    Returns:
        Codes [F, Q] of each utterance, its prompt included.
    """
    openings = [opening_tokens(vocabulary, codes) for codes in prompts]
    n_tokens = n_frames * vocabulary.n_codebooks + 1
    make_engine = partial(
        Engine,
        decoder,
        capacity=n_tokens,
        sampling=sampling,
        allowed=vocabulary.allowed_mask().to(decoder.embed_tokens.weight.device),
        end_token=Special.EOS,
        context=context,
    )
    seeds = draw_seeds(len(prompts), torch.Generator().manual_seed(seed))
    requests = [Request(opening, n_tokens - len(opening), seed) for opening, seed in zip(openings, seeds, strict=True)]
    utterances = say_all(make_engine, requests, batch_size, decoder.embed_tokens.weight.device)
    return [vocabulary.tokens_to_codes(tokens)[:n_frames] for tokens in utterances]


def say_all(
    make_engine: Callable[..., Engine], requests: Sequence[Request], batch_size: int, device: torch.device
) -> list[Tensor]:
    """Continue every opening; on a CPU on all of its cores, a process each.

    Args:
        make_engine: an engine of `n_rows` rows.
        requests: what is continued.
        batch_size: rows side by side, in each process.
        device: of the engine.

    Returns:
        The tokens of each, its opening included.
    """
    work = partial(_say_some, make_engine, batch_size, steps_ahead(device))

    def say_own(own: Sequence[Request]) -> list[list[int]]:
        parts = on_all_cores(work, own, sum(request.n_new for request in own), device)
        return [parts[number % len(parts)][number // len(parts)] for number in range(len(own))]

    said = share(say_own, requests)
    return [torch.cat((request.opening, torch.tensor(new))) for request, new in zip(requests, said, strict=True)]


def _say_some(
    make_engine: Callable[..., Engine],
    batch_size: int,
    n_steps_ahead: int,
    requests: Sequence[Request],
    shows_progress: bool,
) -> list[list[int]]:
    engine = make_engine(n_rows=max(1, min(batch_size, len(requests))))
    return continue_all(engine, requests, n_steps_ahead, shows_progress)


def continue_all(
    engine: Engine, requests: Sequence[Request], n_steps_ahead: int, shows_progress: bool
) -> list[list[int]]:
    """Continue every opening, of which there may be more than rows: one sits down where another has ended.

    Args:
        engine: in which nobody sits.
        requests: what is continued.
        n_steps_ahead: steps that are launched before the first of them is read.
        shows_progress: whether there is a bar.

    Returns:
        What was added to each.
    """
    said: list[list[int]] = [[] for _ in requests]
    waiting = deque(number for number, request in enumerate(requests) if request.n_new > 0)
    seated: dict[int, int] = {}
    with tqdm(total=len(waiting), desc="generating", unit="utterance", disable=not shows_progress) as progress:
        while waiting or seated:
            next_ones = [waiting.popleft() for _ in engine.free_rows if waiting]
            if next_ones:
                joining = [requests[number] for number in next_ones]
                rows = engine.join([r.opening for r in joining], [r.n_new for r in joining], [r.seed for r in joining])
                seated.update(zip(rows, next_ones, strict=True))
            for _ in range(engine.n_unread, n_steps_ahead + 1):
                engine.step()
            for row, tokens, has_ended in engine.read_step():
                said[seated[row]] += tokens
                if has_ended:
                    del seated[row]
                    progress.update()
    return said
