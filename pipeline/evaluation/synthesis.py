"""Speech that a decoder makes up, as codes."""

from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor
from tqdm import tqdm

from lightning_modules.model.decoder import Decoder
from lightning_modules.model.decoding.engine import Engine
from lightning_modules.model.decoding.generation import draw_seeds, steps_ahead
from lightning_modules.model.sampling_configuration import SamplingConfig
from pipeline.evaluation.ranks import own_share, share
from pipeline.tokens.vocabulary import Special, Vocabulary


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
    device, n_codebooks = decoder.embed_tokens.weight.device, vocabulary.n_codebooks
    openings = [opening_tokens(vocabulary, codes) for codes in prompts]
    n_new = [n_frames * n_codebooks + 1 - len(tokens) for tokens in openings]
    own = own_share(range(len(prompts)))
    engine = Engine(
        decoder,
        n_rows=max(1, min(batch_size, len(own))),
        capacity=n_frames * n_codebooks + 1,
        sampling=sampling,
        allowed=vocabulary.allowed_mask().to(device),
        end_token=Special.EOS,
        context=context,
    )
    seeds = draw_seeds(len(prompts), torch.Generator().manual_seed(seed))

    def continue_some(numbers: Sequence[int]) -> list[list[int]]:
        limits, own_seeds = [n_new[number] for number in numbers], [seeds[number] for number in numbers]
        return continue_all(engine, [openings[number] for number in numbers], limits, own_seeds, steps_ahead(device))

    continued = share(continue_some, range(len(prompts)))
    utterances = [tokens.tolist() + new for tokens, new in zip(openings, continued, strict=True)]
    return [vocabulary.tokens_to_codes(torch.tensor(tokens))[:n_frames] for tokens in utterances]


def continue_all(
    engine: Engine, prompts: Sequence[Tensor], n_new: Sequence[int], seeds: Sequence[int], n_steps_ahead: int
) -> list[list[int]]:
    """Continue every prompt, of which there may be more than rows: one sits down where another has ended.

    Args:
        engine: in which nobody sits.
        prompts: tokens [T] of each.
        n_new: how many tokens are added to each at most.
        seeds: of each one's random numbers.
        n_steps_ahead: steps that are launched before the first of them is read.

    Returns:
        What was added to each.
    """
    said: list[list[int]] = [[] for _ in prompts]
    waiting = deque(number for number, n in enumerate(n_new) if n > 0)
    seated: dict[int, int] = {}
    with tqdm(total=len(waiting), desc="generating", unit="utterance") as progress:
        while waiting or seated:
            next_ones = [waiting.popleft() for _ in engine.free_rows if waiting]
            if next_ones:
                joining = [prompts[n] for n in next_ones], [n_new[n] for n in next_ones], [seeds[n] for n in next_ones]
                seated.update(zip(engine.join(*joining), next_ones, strict=True))
            for _ in range(engine.n_unread, n_steps_ahead + 1):
                engine.step()
            for row, tokens, has_ended in engine.read_step():
                said[seated[row]] += tokens
                if has_ended:
                    del seated[row]
                    progress.update()
    return said
