"""What real speech measures: the reference that generated speech is held against."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from pipeline.audio.codecs.codec import Codec
from pipeline.audio.measures.summary import ReferenceStatistics, measure_speech
from pipeline.audio.utterances import Utterance
from pipeline.plumbing.worker_processes import map_parallel
from pipeline.preparation.utterance_reader import UtteranceReader, by_recording

REFERENCE_SPLITS = ("train", "validation")


@dataclass(frozen=True)
class Body:
    """A body of speech to be measured: some utterances of a split, as recorded or as the codec gives them back."""

    split: str
    through_codec: bool
    utterances: Sequence[Utterance]

    @property
    def name(self) -> str:
        """The name of its files: train_real, train_codec, …"""
        return f"{self.split}_{'codec' if self.through_codec else 'real'}"


def measure_references(
    utterances: Sequence[Utterance],
    read: UtteranceReader,
    codec: Codec,
    n_utterances: int,
    seed: int,
    workers: int | None,
) -> dict[str, ReferenceStatistics]:
    """Measure up to `n_utterances` of the train and the validation split, each as recorded and through the codec."""
    bodies = [
        Body(split, through_codec, draw([u for u in utterances if u.split == split], n_utterances, seed))
        for split in REFERENCE_SPLITS
        for through_codec in (True, False)
    ]
    measure = partial(_measure, read=read, codec=codec)
    references = map_parallel(measure, bodies, workers, "measuring", "reference")
    return {body.name: reference for body, reference in zip(bodies, references, strict=True)}


def save_references(references: dict[str, ReferenceStatistics], folder: Path) -> None:
    """Write every reference as `folder`/{name}.json and .safetensors."""
    for name, reference in references.items():
        reference.save(folder / f"{name}.json", folder / f"{name}.safetensors")


def load_reference(folder: Path, name: str) -> ReferenceStatistics:
    """Read one of the references that `save_references` wrote."""
    return ReferenceStatistics.load(folder / f"{name}.json", folder / f"{name}.safetensors")


def draw(utterances: Sequence[Utterance], n: int, seed: int) -> list[Utterance]:
    """At most `n` utterances, drawn without replacement."""
    chosen = np.random.default_rng(seed).permutation(len(utterances))[:n]
    return [utterances[i] for i in sorted(chosen)]


def _measure(body: Body, read: UtteranceReader, codec: Codec) -> ReferenceStatistics:
    return ReferenceStatistics(read.sample_rate, measure_speech(_speak(body, read, codec), read.sample_rate, None))


def _speak(body: Body, read: UtteranceReader, codec: Codec) -> Iterator[np.ndarray]:
    for audio in read.many(by_recording(body.utterances)):
        yield codec.decode(codec.encode(torch.from_numpy(audio))).numpy() if body.through_codec else audio
