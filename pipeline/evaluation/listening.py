"""Sounds beside the model's own: speech through the codec, random tokens, controls; and WAV files of what is heard."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline.audio.codecs.codec import Codec
from pipeline.audio.measures.controls import control_signals
from pipeline.audio.measures.flatness import spectral_flatness
from pipeline.audio.reading import write_wav
from pipeline.evaluation.clip import UNIFORM_RANDOM, UNIGRAM_RANDOM, Clip
from pipeline.evaluation.ranks import share
from pipeline.plumbing.files import atomic_folder, write_json
from pipeline.plumbing.worker_processes import map_parallel
from pipeline.tokens.ngram import NgramBaselines

CONTROLS = {"tone": "tone", "noise": "white_noise"}


def decode_all(codec: Codec, codes: Sequence[Tensor], description: str) -> list[np.ndarray]:
    """Waveforms of many utterances' codes [F, Q], decoded on all cores."""
    decode = partial(_decode, codec=codec)
    return share(lambda own: list(map_parallel(decode, own, None, description, "utterance")), codes)


def random_speech(baselines: NgramBaselines, codec: Codec, lengths: Sequence[int], seed: int) -> list[Clip]:
    """Speech from random codes, as many frames an utterance as `lengths` says: what flatness alone would let pass."""
    generator = torch.Generator().manual_seed(seed)
    codes = {
        UNIGRAM_RANDOM: [baselines.sample_unigram(length, generator) for length in lengths],
        UNIFORM_RANDOM: [baselines.sample_uniform(length, generator) for length in lengths],
    }
    return [
        Clip(kind, number, audio, n_frames=lengths[number], codes=drawn[number])
        for kind, drawn in codes.items()
        for number, audio in enumerate(decode_all(codec, drawn, f"decoding {kind}"))
    ]


def control_speech(n: int, seconds: float, sample_rate: int, seed: int) -> list[Clip]:
    """Signals that are not speech: what a broken model sounds like."""
    return [
        Clip(name, number, audio)
        for name, kind in CONTROLS.items()
        for number, audio in enumerate(control_signals(kind, n, seconds, sample_rate, seed))
    ]


def write_clips(clips: Sequence[Clip], sample_rate: int, folder: Path, table: Path) -> None:
    """Write every clip that is not empty as a WAV file into `folder`, and what they are into the JSON file `table`."""
    rows = []
    with atomic_folder(folder) as temporary:
        for clip in (clip for clip in clips if len(clip.audio)):
            name = f"{clip.kind}_{clip.number:02d}.wav"
            write_wav(temporary / name, clip.audio, sample_rate)
            rows.append(
                {
                    "file": name,
                    "kind": clip.kind,
                    "number": clip.number,
                    "source": clip.source,
                    "prompt_seconds": clip.prompt_seconds,
                    "seconds": len(clip.audio) / sample_rate,
                    "flatness": spectral_flatness(clip.audio, sample_rate),
                }
            )
    write_json(table, rows)


def _decode(codes: Tensor, codec: Codec) -> np.ndarray:
    return codec.decode(codes).numpy()
