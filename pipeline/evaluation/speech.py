"""A decoder speaks: continuations of held-out utterances, and speech from nothing."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from lightning_modules.model.decoder import Decoder
from lightning_modules.model.decoding.generation import draw_seeds
from lightning_modules.model.sampling_configuration import SamplingConfig
from pipeline.audio.codecs.codec import Codec
from pipeline.audio.reading import read_audio
from pipeline.evaluation.clip import CODEC, CONTINUATION, REAL, UNPROMPTED, Clip
from pipeline.evaluation.configuration import SpeechConfig
from pipeline.evaluation.listening import decode_all
from pipeline.evaluation.prompts import Prompt, choose_prompts
from pipeline.evaluation.synthesis import generate_codes
from pipeline.plumbing.files import read_json
from pipeline.tokens.dataset import TokenDataset


def speak(
    decoder: Decoder,
    codec: Codec,
    test: TokenDataset,
    examples: Path,
    config: SpeechConfig,
    sampling: SamplingConfig,
    seed: int,
    context: int | None = None,
) -> list[Clip]:
    """Continue held-out utterances, and speak from nothing.

    Args:
        decoder: the model.
        codec: that its tokens are of.
        test: held-out utterances.
        examples: the folder of recordings that were kept of them.
        config: how many clips, how long, and how many at once.
        sampling: how tokens are drawn.
        seed: of the choice of utterances and of the draws.
        context: tokens that the model has learnt to look back over; None: all.

    Returns:
        The utterances that were continued, as recorded as far as that was kept and through the codec, their
        continuations, and speech from nothing.
    """
    frames, prompt_frames = (round(s * codec.frame_rate) for s in (config.seconds, config.prompt_seconds))
    recorded = {row["document"]: row for row in read_json(examples / "examples.json")}
    prompts = choose_prompts(test, list(recorded), config.n_prompted, prompt_frames, seed)
    starts = [prompt.codes[:prompt_frames] for prompt in prompts]
    starts += [prompts[0].codes[:0]] * config.n_unprompted
    codes = generate_codes(decoder, test.vocabulary, starts, frames, sampling, seed, config.batch_size, context)
    seeds = draw_seeds(len(starts), torch.Generator().manual_seed(seed))
    n = len(prompts)
    return [
        *_recordings(prompts, recorded, examples),
        *_through_codec(codec, prompts),
        *_continuations(codec, prompts, codes[:n], seeds[:n], prompt_frames),
        *_from_nothing(codec, codes[n:], seeds[n:]),
    ]


def _recordings(prompts: Sequence[Prompt], recorded: dict[int, dict[str, str]], examples: Path) -> list[Clip]:
    """The prompts' utterances as recorded, each once."""
    return [
        Clip(REAL, number, read_audio(examples / row["file"])[0], row["utterance"], document=prompt.document)
        for number, prompt in enumerate(prompts[: len(recorded)])
        if (row := recorded.get(prompt.document))
    ]


def _through_codec(codec: Codec, prompts: Sequence[Prompt]) -> list[Clip]:
    """The prompts' utterances, whole; where there are more prompts than utterances, each once."""
    once = list({prompt.document: prompt for prompt in prompts}.values())
    decoded = decode_all(codec, [prompt.codes for prompt in once], "decoding real")
    return [
        Clip(
            CODEC,
            number,
            audio,
            _source(prompt),
            document=prompt.document,
            n_frames=len(prompt.codes),
            codes=prompt.codes,
        )
        for number, (prompt, audio) in enumerate(zip(once, decoded, strict=True))
    ]


def _continuations(
    codec: Codec, prompts: Sequence[Prompt], codes: Sequence[Tensor], seeds: Sequence[int], prompt_frames: int
) -> list[Clip]:
    # Prompts are whole frames: at low frame rates not quite the seconds asked for.
    given_seconds = prompt_frames / codec.frame_rate
    decoded = decode_all(codec, codes, "decoding continuations")
    return [
        Clip(
            CONTINUATION,
            number,
            decoded[number],
            _source(prompt),
            given_seconds,
            document=prompt.document,
            seed=seeds[number],
            n_frames=max(len(codes[number]) - prompt_frames, 0),
            n_given=round(given_seconds * codec.sample_rate),
            codes=codes[number][prompt_frames:],
        )
        for number, prompt in enumerate(prompts)
    ]


def _from_nothing(codec: Codec, codes: Sequence[Tensor], seeds: Sequence[int]) -> list[Clip]:
    decoded = decode_all(codec, codes, "decoding unprompted")
    return [
        Clip(UNPROMPTED, number, audio, seed=seeds[number], n_frames=len(codes[number]), codes=codes[number])
        for number, audio in enumerate(decoded)
    ]


def _source(prompt: Prompt) -> str:
    return f"test document {prompt.document}"
