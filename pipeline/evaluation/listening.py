"""Bodies of speech, real, generated and degenerate, side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.audio.codecs.codec import Codec
from pipeline.audio.measures.controls import control_signals
from pipeline.audio.measures.flatness import spectral_flatness
from pipeline.audio.measures.frechet import FrechetStatistics, frechet_distance
from pipeline.audio.measures.summary import SpeechMeasures, measure_speech
from pipeline.audio.reading import write_wav
from pipeline.plumbing.files import atomic_folder, write_json
from pipeline.plumbing.worker_processes import map_parallel
from pipeline.tokens.ngram import NgramBaselines

CONTROLS = {"tone": "tone", "noise": "white_noise"}


@dataclass(frozen=True)
class Clip:
    """An utterance to listen to.

    Attributes:
        kind: real, codec (real speech through the codec), continuation or unprompted.
        number: clips of the same number belong together: a continuation, and the real utterance it continues.
        audio: samples [S].
        source: which utterance it comes from.
        prompt_seconds: how much of it was given.
    """

    kind: str
    number: int
    audio: np.ndarray
    source: str = ""
    prompt_seconds: float = 0.0


def decode_all(codec: Codec, codes: Sequence[Tensor], description: str) -> list[np.ndarray]:
    """Waveforms of many utterances' codes [F, Q], decoded on all cores."""
    return list(map_parallel(partial(_decode, codec=codec), codes, None, description, "utterance"))


def random_speech(
    baselines: NgramBaselines, codec: Codec, lengths: Sequence[int], seed: int
) -> dict[str, list[np.ndarray]]:
    """Speech from random codes, as many frames an utterance as `lengths` says: what flatness alone would let pass."""
    generator = torch.Generator().manual_seed(seed)
    codes = {
        "unigram_random": [baselines.sample_unigram(length, generator) for length in lengths],
        "uniform_random": [baselines.sample_uniform(length, generator) for length in lengths],
    }
    return {name: decode_all(codec, drawn, f"decoding {name}") for name, drawn in codes.items()}


def control_speech(n: int, seconds: float, sample_rate: int, seed: int) -> dict[str, list[np.ndarray]]:
    """Signals that are not speech: what a broken model sounds like."""
    return {name: control_signals(kind, n, seconds, sample_rate, seed) for name, kind in CONTROLS.items()}


def measure_bodies(
    bodies: Mapping[str, Sequence[np.ndarray]], sample_rate: int, reference: FrechetStatistics
) -> dict[str, SpeechMeasures]:
    """Measure every body of speech, on all cores."""
    measure = partial(measure_speech, sample_rate=sample_rate, reference=reference)
    return dict(zip(bodies, map_parallel(measure, list(bodies.values()), None, "measuring", "body"), strict=True))


def comparison_rows(
    measures: Mapping[str, SpeechMeasures], reference: FrechetStatistics, undecoded: FrechetStatistics
) -> list[dict[str, Any]]:
    """One row a body of speech, for comparison.csv.

    `fd` is the Fréchet distance to training speech through the codec, `fd_undecoded` that to training speech as it was
    recorded: the one hides what the codec loses, the other shows it.
    """
    return [
        {
            "signal": name,
            "flatness": m.flatness,
            "flatness_db": m.flatness_db,
            "fd": distance(m, reference),
            "fd_undecoded": distance(m, undecoded),
            "mel_flux_db": m.mel_flux_db,
            "modulation_depth": m.modulation_depth,
        }
        for name, m in measures.items()
    ]


def distance(measures: SpeechMeasures, reference: FrechetStatistics) -> float:
    """The Fréchet distance of a body of speech to a reference; NaN when there was nothing to hear."""
    return frechet_distance(measures.statistics, reference) if measures.statistics.count > 1 else float("nan")


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
