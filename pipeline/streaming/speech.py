"""From a model to tokens, from tokens to frames, and from frames to sound, each as soon as the one before is there."""

import itertools
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from lightning_modules.model.decoding.generation import draw_seeds, generate, generate_speculatively
from lightning_modules.model.decoding.speculation import Acceptance
from lightning_modules.model.sampling_configuration import SamplingConfig
from pipeline.audio.codecs.codec import Codec
from pipeline.evaluation.synthesis import opening_tokens
from pipeline.streaming.export import SpeakingExport
from pipeline.tokens.vocabulary import Special, Vocabulary

# Of a prompt that is not heard itself: the sound that what follows is joined to, longer than any codec looks back.
LEAD_SECONDS = 0.5


def stream_tokens(
    export: SpeakingExport,
    prompt: Tensor,
    n_new_frames: int,
    sampling: SamplingConfig,
    seed: int,
    speculative: bool = False,
    acceptance: Acceptance | None = None,
) -> Iterator[int]:
    """Yield the tokens that continue one prompt, each as soon as it is drawn.

    Args:
        export: what speaks.
        prompt: codes [f, Q] to continue; with f = 0, speech starts from nothing.
        n_new_frames: frames that are added at most. Where the utterance becomes longer than the model's context, it is
            seen through windows (see `lightning_modules.model.sliding`).
        sampling: how tokens are drawn.
        seed: the same seed gives the tokens that `generate_codes` gives for this prompt alone.
        speculative: draft with the multi-token-prediction modules: the same greedy tokens, and sampled ones of the same
            distribution, though not those of `generate_codes`, from fewer passes of the decoder.
        acceptance: counts drafts.

    Raises:
        ValueError: the utterance may become longer than drafts reach.
    """
    device = export.decoder.embed_tokens.weight.device
    opening = opening_tokens(export.vocabulary, prompt)[None].to(device)
    n_new = n_new_frames * export.vocabulary.n_codebooks
    is_longer = opening.shape[1] + n_new > export.context
    if speculative and is_longer:
        longest = (export.context - opening.shape[1]) / export.vocabulary.n_codebooks / export.codec.frame_rate
        raise ValueError(
            f"speculative is true, and drafts reach no further than the {export.context} tokens of the model's "
            f"context; lower seconds to {longest:.2f}, or leave speculative out."
        )
    asked = (export.decoder, opening, n_new, sampling, export.allowed().to(device), Special.EOS)
    seeds = torch.Generator().manual_seed(seed)
    tokens = (
        generate_speculatively(*asked, seeds, acceptance)
        if speculative
        else generate(*asked, seeds, context=export.context if is_longer else None)
    )
    for token in tokens:
        yield int(token)


def row_seed(seed: int) -> int:
    """The seed of the row that speaks with a seed, alone or among others: the same on every device."""
    return draw_seeds(1, torch.Generator().manual_seed(seed))[0]


def stream_codes(vocabulary: Vocabulary, tokens: Iterable[int]) -> Iterator[Tensor]:
    """Gather tokens into frames of codes [1, Q], each yielded with its last token, until the end-of-document token."""
    frame: list[int] = []
    for token in tokens:
        if token == Special.EOS:
            return
        frame.append(token)
        if len(frame) == vocabulary.n_codebooks:
            yield vocabulary.tokens_to_codes(torch.tensor(frame))
            frame.clear()


def stream_audio(codec: Codec, prompt: Tensor, frames: Iterable[Tensor], echo: bool = False) -> Iterator[np.ndarray]:
    """Yield audio, float32 [s] at the codec's sample rate, as soon as the codec is sure of it.

    Args:
        codec: its chunks together are what `codec.stream()` makes of all codes at once.
        prompt: codes [f, Q] that come before.
        frames: codes [1, Q] of each frame after those.
        echo: let the whole prompt be heard first. Else what follows begins as if it had been, without a seam.
    """
    lead = prompt if echo else prompt[len(prompt) - min(len(prompt), round(LEAD_SECONDS * codec.frame_rate)) :]
    n_unheard = 0 if echo else round(len(lead) * codec.sample_rate / codec.frame_rate)
    stream = codec.stream()
    pushed = (stream.push(codes) for codes in itertools.chain([lead], frames))
    for audio in itertools.chain(pushed, (stream.finish() for _ in range(1))):
        heard = audio[n_unheard:]
        n_unheard -= len(audio) - len(heard)
        if len(heard):
            yield heard.numpy()
