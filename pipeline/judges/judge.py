"""What every judge is to those who ask it. Light: needs no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np

# What all of them were trained on: sound of a lower rate is brought to it, and stays as narrow as it was.
SAMPLE_RATE = 16_000


@dataclass(frozen=True)
class Specimen:
    """A sound to be judged, at 16 kHz.

    Attributes:
        audio: samples [S], float32.
        transcript: what is said in it; empty where nobody knows.
        prompt: what it continues, samples [P]; None where it continues nothing.
        continuation: the part of `audio` that continues it, samples [C].
    """

    audio: np.ndarray
    transcript: str = ""
    prompt: np.ndarray | None = None
    continuation: np.ndarray | None = None


@dataclass(frozen=True)
class Measure:
    """One of the figures that a judge gives a sound.

    Attributes:
        heading: what a reader sees.
        better: in which direction it is good.
        meaning: what it is, in a sentence.
    """

    heading: str
    better: Literal["higher", "lower"]
    meaning: str


@dataclass(frozen=True)
class Judgement:
    """What a judge says of a sound.

    Attributes:
        figures: by the names of its measures, without those that it has no ground for.
        heard: the words that it heard, if it listens to words.
    """

    figures: Mapping[str, float] = field(default_factory=dict)
    heard: str | None = None


class Judge(Protocol):
    """Someone trained elsewhere who gives sounds figures.

    Attributes:
        measures: its figures, by their names.
        origin: whose weights these are.
        compares: whether it holds a sound against the prompt that it continues, and is asked only where there is one.
    """

    measures: Mapping[str, Measure]
    origin: str
    compares: bool

    def judge(self, specimen: Specimen) -> Judgement:
        """Judge one sound."""
        ...
