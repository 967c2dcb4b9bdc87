"""A decoder speaks: continuations of held-out utterances, and speech from nothing."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lightning_modules.model.decoder import Decoder
from lightning_modules.model.sampling_configuration import SamplingConfig
from pipeline.audio.codecs.codec import Codec
from pipeline.audio.reading import read_audio
from pipeline.evaluation.configuration import SpeechConfig
from pipeline.evaluation.listening import Clip, decode_all
from pipeline.evaluation.prompts import choose_prompts
from pipeline.evaluation.synthesis import generate_codes
from pipeline.plumbing.files import read_json
from pipeline.tokens.shards import TokenDataset


@dataclass(frozen=True)
class Generated:
    """What a decoder said.

    Attributes:
        clips: to listen to.
        bodies: to measure: held-out speech through the codec, all that was generated (continuations without their
            prompts), and its two kinds.
        n_frames: generated frames of each utterance.
    """

    clips: list[Clip]
    bodies: dict[str, list[np.ndarray]]
    n_frames: list[int]


def speak(
    decoder: Decoder,
    codec: Codec,
    test: TokenDataset,
    examples: Path,
    config: SpeechConfig,
    sampling: SamplingConfig,
    seed: int,
    context: int | None = None,
) -> Generated:
    """Continue held-out utterances, and speak from nothing; `context` is as `generate` takes it."""
    frames, prompt_frames = (round(s * codec.frame_rate) for s in (config.seconds, config.prompt_seconds))
    recorded = {row["document"]: row for row in read_json(examples / "examples.json")}
    prompts = choose_prompts(test, list(recorded), config.n_prompted, prompt_frames, seed)
    vocabulary = test.vocabulary
    starts = [prompt.codes[:prompt_frames] for prompt in prompts]
    starts += [prompts[0].codes[:0]] * config.n_unprompted
    generated = generate_codes(decoder, vocabulary, starts, frames, sampling, seed, config.batch_size, context)
    continued, unprompted = generated[: len(prompts)], generated[len(prompts) :]
    through_codec = decode_all(codec, [prompt.codes for prompt in prompts], "decoding real")
    continuations = decode_all(codec, continued, "decoding continuations")
    spoken = decode_all(codec, unprompted, "decoding unprompted")
    # Prompts are whole frames: at low frame rates not quite the seconds asked for.
    given_seconds = prompt_frames / codec.frame_rate
    given = round(given_seconds * codec.sample_rate)
    clips = []
    for number, prompt in enumerate(prompts):
        source = f"test document {prompt.document}"
        if prompt.document in recorded and number < len(recorded):
            audio, _ = read_audio(examples / recorded[prompt.document]["file"])
            clips.append(Clip("real", number, audio, recorded[prompt.document]["utterance"]))
        clips.append(Clip("codec", number, through_codec[number], source))
        clips.append(Clip("continuation", number, continuations[number], source, given_seconds))
    clips += [Clip("unprompted", number, audio) for number, audio in enumerate(spoken)]
    new_speech = [audio[given:] for audio in continuations]
    return Generated(
        clips,
        {
            "codec": through_codec,
            "generated": [*new_speech, *spoken],
            "continuation": new_speech,
            "unprompted": spoken,
        },
        [max(len(codes) - prompt_frames, 0) for codes in continued] + [len(codes) for codes in unprompted],
    )
