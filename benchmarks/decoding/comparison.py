"""Two codes that continue the same rows: in turns, and held against each other."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from benchmarks.clock import StepClock


class Ours(Protocol):
    """Our side: says tokens."""

    clock: StepClock

    def step(self) -> None:
        """Take a step."""
        ...

    def tokens(self) -> Tensor:
        """What the rows have said so far [B, n]."""
        ...

    def release(self) -> None:
        """Let go of the memory that steps need."""
        ...


class Theirs(Protocol):
    """The peer's side: scores what we say."""

    clock: StepClock

    def step(self, said: Tensor) -> Tensor:
        """Scores [B, V] of the token after those that the rows have said so far [B, n]."""
        ...


@dataclass(frozen=True)
class Agreement:
    """How our tokens do by the peer's scores.

    Attributes:
        equal: the share of them that are its own choice.
        mean_regret: by how much the score of its choice exceeds that of ours, in standard deviations of the scores.
        largest_regret: the most that it does.
    """

    equal: float
    mean_regret: float
    largest_regret: float


def take_steps(
    ours: Ours, meet: Callable[[], Theirs] | None, n_steps: int, turn: int, n_checked: int
) -> tuple[Theirs, Agreement] | None:
    """Take all steps of ours, and after each `turn` of them as many of the peer's.

    Args:
        ours: our side.
        meet: makes the other side, once it is its turn; None: there is none.
        n_steps: of each side.
        turn: steps that are taken in a row.
        n_checked: first steps whose tokens are judged.
    """
    theirs: Theirs | None = None
    scores: list[Tensor] = []
    while ours.clock.n_steps < n_steps:
        before = ours.clock.n_steps
        after = min(before + turn, n_steps)
        for _ in range(before, after):
            ours.step()
        tokens = ours.tokens()
        if after == n_steps:
            ours.release()
        if meet is None:
            continue
        theirs = theirs or meet()
        for step in range(before, after):
            said = theirs.step(tokens[:, :step])
            if step < n_checked:
                scores.append(said)
    return None if theirs is None else (theirs, judge(scores, tokens))


def judge(scores: list[Tensor], tokens: Tensor) -> Agreement:
    """Hold `tokens` [B, n] against the scores [B, V] of each of the first steps."""
    equal, regrets = [], []
    for step, each in enumerate(scores):
        each, ours = each.float(), tokens[:, step, None]
        regret = (each.amax(-1) - each.gather(1, ours)[:, 0]) / each.std(-1)
        regrets += regret.tolist()
        equal += (each.argmax(-1) == ours[:, 0]).tolist()
    return Agreement(statistics.fmean(equal), statistics.fmean(regrets), max(regrets))
