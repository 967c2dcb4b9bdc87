"""Speech as it is generated, from an export to a file, standard output or the sound card."""

import contextlib
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch

from lightning_modules.model.cache import LatentCache
from lightning_modules.model.decoding.speculation import Acceptance
from pipeline.streaming.configuration import SPEAKER, STANDARD_OUTPUT, StreamConfig
from pipeline.streaming.export import SpeakingExport, load_export
from pipeline.streaming.interruption import Interruption
from pipeline.streaming.pace import Pace
from pipeline.streaming.prompt import read_prompt
from pipeline.streaming.sinks import ListenerLeftError, open_sink
from pipeline.streaming.speech import stream_audio, stream_codes, stream_tokens


def stream(config: StreamConfig, seed: int) -> None:
    """Speak until the utterance ends, its time is over, nobody listens, or an end is requested.

    Whatever ends it, a file holds all that was said. How fast it came is told on standard error.

    Args:
        config: what is spoken, by whom, and where to.
        seed: of the random draws.

    Raises:
        FileNotFoundError, ValueError: naming the setting or file that cannot be, and the remedy.
    """
    export = load_export(Path(config.export), config.device)
    codec = export.codec
    prompt = torch.zeros(0, codec.n_codebooks, dtype=torch.long)
    if config.prompt is not None:
        prompt = read_prompt(Path(config.prompt), codec, f"prompt={config.prompt}")
    pace, acceptance = measured_pace(export, len(prompt)), Acceptance()
    with Interruption() as interruption, open_sink(config.to, codec.sample_rate, interruption) as sink:
        drawn = stream_tokens(
            export, prompt, export.n_frames(config.seconds), config.sampling, seed, config.speculative, acceptance
        )
        frames = stream_codes(export.vocabulary, pace.count(until_requested(drawn, interruption)))
        with contextlib.suppress(ListenerLeftError):
            for audio in pace.watch(stream_audio(codec, prompt, frames, config.echo)):
                sink.write(audio)
    written = "" if config.to in (STANDARD_OUTPUT, SPEAKER) else f" Wrote {config.to}."
    print(pace.sentence(acceptance) + written, file=sys.stderr)


def until_requested(tokens: Iterable[int], interruption: Interruption) -> Iterator[int]:
    """Let tokens pass until an end is requested."""
    for token in tokens:
        yield token
        if interruption.requested:
            return


def measured_pace(export: SpeakingExport, n_prompt_frames: int) -> Pace:
    """A count that knows what a token takes in the cache."""
    decoder = export.decoder
    row = LatentCache(decoder.config, 1, 1, decoder.embed_tokens.weight.dtype, "meta")
    n_tokens = 1 + n_prompt_frames * export.vocabulary.n_codebooks
    return Pace(export.codec.sample_rate, row.bytes_per_token, export.context, n_tokens)
