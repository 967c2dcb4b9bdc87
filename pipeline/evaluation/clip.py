"""A sound of an evaluation: real, made up by the model, or a control."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

# As recorded, and through the codec.
REAL, CODEC = "real", "codec"
CONTINUATION, UNPROMPTED = "continuation", "unprompted"
GENERATED = (CONTINUATION, UNPROMPTED)
UNIGRAM_RANDOM, UNIFORM_RANDOM = "unigram_random", "uniform_random"


@dataclass(frozen=True)
class Clip:
    """An utterance.

    Attributes:
        kind: real, codec, continuation, unprompted, unigram_random, uniform_random, tone or noise.
        number: clips of the same number belong together: a continuation, and the real utterance it continues.
        audio: samples [S].
        source: which utterance it comes from, in words.
        prompt_seconds: how much of it was given.
        document: the test document that it comes from.
        seed: of the random numbers that it was drawn with.
        n_frames: frames of codes that were drawn for it, or taken from its document.
        n_given: samples of `audio` that were given.
        codes: [n_frames, Q] that it was decoded from, without those that were given.
    """

    kind: str
    number: int
    audio: np.ndarray
    source: str = ""
    prompt_seconds: float = 0.0
    document: int | None = None
    seed: int | None = None
    n_frames: int = 0
    n_given: int = 0
    codes: Tensor | None = None

    @property
    def own_audio(self) -> np.ndarray:
        """What is judged: the samples after those that were given."""
        return self.audio[self.n_given :]
