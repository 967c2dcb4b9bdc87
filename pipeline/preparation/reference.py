"""What real speech measures: the reference that generated speech is held against."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from pipeline.audio.codecs.codec import Codec
from pipeline.audio.measures.summary import ReferenceStatistics, measure_speech
from pipeline.audio.utterances import Utterance
from pipeline.preparation.encoding import Material
from pipeline.preparation.plan import Plan
from pipeline.preparation.sharded import ShardedWork
from pipeline.preparation.utterance_reader import UtteranceReader, by_recording

FOLDER = "reference"
# Each body of speech: utterances of a split, as the codec gives them back or as recorded.
BODIES = {
    f"{split}_{signal}": (split, signal == "codec") for split in ("train", "validation") for signal in ("codec", "real")
}


@dataclass(frozen=True)
class Measuring(ShardedWork):
    """Measures up to `n_utterances` of the train and the validation split, each as recorded and through the codec.

    Attributes:
        material: where the utterances come from.
        n_utterances: of each body.
        seed: of which they are.
    """

    material: Material
    n_utterances: int
    seed: int

    description: ClassVar[str] = "measuring"
    unit: ClassVar[str] = "reference"
    n_shards: ClassVar[int] = len(BODIES)

    def name(self, number: int) -> str:
        """The body's name, by which its files are called."""
        return list(BODIES)[number]

    def written(self) -> set[int]:
        """The bodies that are measured."""
        folder = self.material.folder / FOLDER
        return {number for number in range(self.n_shards) if (folder / f"{self.name(number)}.json").exists()}

    def __call__(self, number: int) -> None:
        """Measure a body."""
        name = self.name(number)
        split, through_codec = BODIES[name]
        with self.material.open() as (plan, read):
            utterances = drawn(plan, split, self.n_utterances, self.seed)
            speech = speak(utterances, read, self.material.codec if through_codec else None)
            measures = measure_speech(speech, read.sample_rate, None)
        save_reference(ReferenceStatistics(read.sample_rate, measures), self.material.folder / FOLDER, name)


def save_reference(reference: ReferenceStatistics, folder: Path, name: str) -> None:
    """Write a reference as `folder`/{name}.json and .safetensors."""
    reference.save(folder / f"{name}.json", folder / f"{name}.safetensors")


def load_reference(folder: Path, name: str) -> ReferenceStatistics:
    """Read one of the references that `save_reference` wrote."""
    return ReferenceStatistics.load(folder / f"{name}.json", folder / f"{name}.safetensors")


def drawn(plan: Plan, split: str, n: int, seed: int) -> list[Utterance]:
    """At most `n` utterances of a split, drawn without replacement."""
    numbers = np.random.default_rng(seed).permutation(plan.count(split))[:n]
    return [plan.utterance(split, int(number)) for number in sorted(numbers)]


def speak(utterances: Sequence[Utterance], read: UtteranceReader, codec: Codec | None) -> Iterator[np.ndarray]:
    """The samples of one utterance after another, as a codec gives them back where there is one."""
    for audio in read.many(by_recording(utterances)):
        yield codec.decode(codec.encode(torch.from_numpy(audio))).numpy() if codec is not None else audio
