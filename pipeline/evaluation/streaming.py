"""Speech that is heard while it is still being made up."""

import itertools
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from lightning_modules.model.decoder import Decoder
from lightning_modules.model.decoding.generation import generate
from lightning_modules.model.decoding.speculative import generate_speculatively
from lightning_modules.model.sampling_configuration import SamplingConfig
from pipeline.audio.codecs.codec import Codec
from pipeline.evaluation.synthesis import opening_tokens
from pipeline.tokens.vocabulary import Special, Vocabulary


def stream_tokens(
    decoder: Decoder,
    vocabulary: Vocabulary,
    prompt: Tensor,
    n_frames: int,
    sampling: SamplingConfig,
    seed: int,
    speculative: bool = False,
) -> Iterator[int]:
    """Yield the tokens that continue one prompt, each as soon as it is drawn.

    Args:
        decoder: the model, in evaluation mode.
        vocabulary: how codes become tokens.
        prompt: codes [f, Q] to continue; with f = 0, speech starts from nothing.
        n_frames: frames of the utterance at most, its prompt included.
        sampling: how tokens are drawn.
        seed: the same seed gives the tokens that `generate_codes` gives for this prompt alone.
        speculative: draft with the multi-token-prediction modules: the same greedy tokens, and sampled ones of the same
            distribution, though not those of `generate_codes`, from fewer passes of the decoder.
    """
    opening = opening_tokens(vocabulary, prompt)[None]
    generator = torch.Generator().manual_seed(seed)
    start = generate_speculatively if speculative else generate
    n_new = (n_frames - len(prompt)) * vocabulary.n_codebooks
    for token in start(decoder, opening, n_new, sampling, vocabulary.allowed_mask(), Special.EOS, generator):
        yield int(token)


def stream_codes(vocabulary: Vocabulary, tokens: Iterator[int]) -> Iterator[Tensor]:
    """Gather tokens into frames of codes [1, Q], each yielded with its last token, until the end-of-document token."""
    frame: list[int] = []
    for token in tokens:
        if token == Special.EOS:
            return
        frame.append(token)
        if len(frame) == vocabulary.n_codebooks:
            yield vocabulary.tokens_to_codes(torch.tensor(frame))
            frame.clear()


def stream_speech(
    decoder: Decoder,
    codec: Codec,
    vocabulary: Vocabulary,
    prompt: Tensor,
    n_frames: int,
    sampling: SamplingConfig,
    seed: int,
    speculative: bool = False,
) -> Iterator[np.ndarray]:
    """Yield one utterance's audio, float32 [s] at the codec's sample rate, chunk by chunk while it is generated.

    The prompt is heard first. A chunk comes as soon as the codec is sure of it; together the chunks are what
    `codec.stream()` makes of all codes at once. Arguments are those of `stream_tokens`; the audio is the codec's of the
    codes that `generate_codes` would return.
    """
    tokens = stream_tokens(decoder, vocabulary, prompt, n_frames, sampling, seed, speculative)
    stream = codec.stream()
    for codes in itertools.chain([prompt[:n_frames]], stream_codes(vocabulary, tokens)):
        audio = stream.push(codes)
        if len(audio):
            yield audio.numpy()
    rest = stream.finish()
    if len(rest):
        yield rest.numpy()
