"""How fast speech came: what is told at the end of a stream."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from lightning_modules.model.decoding.speculation import Acceptance


@dataclass
class Pace:
    """Counted while tokens and audio pass by. Time that listeners take to take audio is not counted.

    Attributes:
        sample_rate: of the audio, in Hz.
        cache_bytes_per_token: what the model keeps of a token.
        context: tokens that it keeps at most.
        n_tokens: that were in the cache at the end, the prompt's included.
        n_new: tokens that were drawn.
        n_samples: of audio.
        first_audio: seconds until there was any; None: there was none.
        busy: seconds that all of it took.
    """

    sample_rate: int
    cache_bytes_per_token: float
    context: int
    n_tokens: int
    n_new: int = 0
    n_samples: int = 0
    first_audio: float | None = None
    busy: float = 0.0

    def count(self, tokens: Iterable[int]) -> Iterator[int]:
        """Let tokens pass."""
        for token in tokens:
            self.n_new += 1
            yield token

    def watch(self, chunks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Let audio [s] pass."""
        begin = time.perf_counter()
        for chunk in chunks:
            self.busy += time.perf_counter() - begin
            self.first_audio = self.busy if self.first_audio is None else self.first_audio
            self.n_samples += len(chunk)
            yield chunk
            begin = time.perf_counter()
        self.busy += time.perf_counter() - begin

    @property
    def seconds(self) -> float:
        """Of audio."""
        return self.n_samples / self.sample_rate

    @property
    def real_time_factor(self) -> float:
        """Seconds that a second of audio takes; below 1, a listener does not wait."""
        return self.busy / self.seconds if self.n_samples else float("nan")

    def sentence(self, acceptance: Acceptance) -> str:
        """All of it in one line.

        Args:
            acceptance: of drafts, where there were any.
        """
        if self.first_audio is None:
            return "Nothing was said: the model ended its utterance at once. Another seed=… may say more."
        n_held = min(self.n_tokens + self.n_new, self.context)
        cache = f"cache {n_held * self.cache_bytes_per_token / 2**20:.2f} MiB"
        line = (
            f"{self.seconds:.2f} s of speech in {self.busy:.2f} s (real-time factor {self.real_time_factor:.2f}), the "
            f"first of it after {self.first_audio:.2f} s; {self.n_new} tokens, {self.n_new / self.busy:.0f} a second; "
            f"{cache}, {self.cache_bytes_per_token:.0f} bytes a token"
        )
        if acceptance.n_drafted:
            line += f"; {acceptance.rate:.0%} of drafts accepted, {acceptance.tokens_per_round:.2f} tokens a pass"
        return f"{line}."
