"""What a family of faults came to."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

# A drill names what it lost; this many of a family are printed.
SHOWN = 8


class LostError(Exception):
    """A fault that was not survived: a falsehood, a raw error, a hang, or work that did not come back."""


@dataclass
class Tally:
    """How often a fault was tried, and what was lost.

    Attributes:
        fault: in words.
        tries: how often it was tried.
        losses: a sentence for each that was not survived.
        skipped: why it was not tried at all.
        seconds: how long it took.
    """

    fault: str
    tries: int = 0
    losses: list[str] = field(default_factory=list)
    skipped: str = ""
    seconds: float = 0.0


class Family:
    """Tries one kind of fault again and again, until its tries or its time are used up.

    Args:
        fault: in words.
        random: the source of every choice.
        seconds: when to stop.
    """

    def __init__(self, fault: str, random: random.Random, seconds: float) -> None:
        self.tally = Tally(fault)
        self.random = random
        self._began = time.monotonic()
        self._deadline = self._began + seconds

    @property
    def has_time(self) -> bool:
        """Whether there is time for another try."""
        return time.monotonic() < self._deadline

    def attempt(self, what: str, survive: Callable[[], None]) -> None:
        """Try a fault once; `survive` raises LostError when it is not survived."""
        self.tally.tries += 1
        try:
            survive()
        except LostError as lost:
            self.tally.losses.append(f"{what}: {lost}")
        except Exception as error:  # noqa: BLE001 - anything that comes through raw is a loss
            self.tally.losses.append(f"{what}: {type(error).__name__}: {error}")
        self.tally.seconds = time.monotonic() - self._began


def table(tallies: list[Tally]) -> str:
    """One row a fault: fault, tries, survived, lost, seconds; below it what was lost."""
    width = max(len(tally.fault) for tally in tallies)
    lines = [f"{'fault':{width}}  {'tries':>6}  {'survived':>8}  {'lost':>5}  {'seconds':>7}"]
    for tally in tallies:
        if tally.skipped:
            lines.append(f"{tally.fault:{width}}  not tried: {tally.skipped}")
            continue
        lost = len(tally.losses)
        lines.append(f"{tally.fault:{width}}  {tally.tries:6}  {tally.tries - lost:8}  {lost:5}  {tally.seconds:7.0f}")
    for tally in tallies:
        lines += [f"LOST {tally.fault}: {loss}" for loss in tally.losses[:SHOWN]]
        if len(tally.losses) > SHOWN:
            lines.append(f"LOST {tally.fault}: and {len(tally.losses) - SHOWN} more")
    return "\n".join(lines)
