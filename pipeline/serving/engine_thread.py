"""The one thread that continues all utterances, step by step; clients come and go between two steps."""

import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from torch import Tensor

from lightning_modules.model.decoding.engine import Engine, Spoken

log = logging.getLogger(__name__)

ENDING = "The server is ending."


class BusyError(Exception):
    """All rows are taken, and all places to wait for one: or the server is about to end."""


class SpeechFailedError(Exception):
    """An utterance cannot go on, by no fault of who asked for it."""


@dataclass(eq=False)
class Utterance:
    """What is to be said, and what has been said of it so far.

    Attributes:
        opening: tokens [T], the beginning-of-document token first.
        max_new_tokens: how many to add at most.
        seed: of the row's random numbers.
        is_wanted: whether anybody listens.
    """

    opening: Tensor
    max_new_tokens: int
    seed: int
    is_wanted: bool = True
    _said: "queue.SimpleQueue[list[int] | Exception | None]" = field(default_factory=queue.SimpleQueue)

    def tokens(self) -> Iterator[int]:
        """Yield tokens as they are drawn, waiting for each, until the utterance ends or nobody wants it any more.

        Raises:
            SpeechFailedError: when it cannot go on.
        """
        while self.is_wanted and (said := self._said.get()) is not None:
            if isinstance(said, Exception):
                raise said
            yield from said

    def tell(self, said: "list[int] | Exception | None") -> None:
        """Hand over tokens, or why there are none; None: that was all."""
        self._said.put(said)

    def leave(self) -> None:
        """Say that nobody listens any more; whoever waits for a token is let go."""
        self.is_wanted = False
        self.tell(None)


class EngineThread:
    """Lets utterances join an engine, first come first served, and tells them what they say.

    Args:
        build: makes the engine; after a failure, from which its state may be anything, another one.
        n_waiting: utterances that may wait for a row.
        n_ahead: steps that are launched before the first of them is read, so that a GPU never waits for the host.
    """

    def __init__(self, build: Callable[[], Engine], n_waiting: int, n_ahead: int) -> None:
        self._build = build
        self._engine = build()
        self._n_places = len(self._engine.free_rows) + n_waiting
        self._waiting: deque[Utterance] = deque()
        self._seated: dict[int, Utterance] = {}
        self._n_ahead = n_ahead
        self._is_closing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End after the current step; utterances that are not at their end fail."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join()

    def submit(self, utterance: Utterance) -> None:
        """Let an utterance wait for a row.

        Raises:
            BusyError: when there is no place to wait.
        """
        with self._changed:
            if self._is_closing or len(self._waiting) + len(self._seated) >= self._n_places:
                raise BusyError
            self._waiting.append(utterance)
            self._changed.notify()

    def counts(self) -> tuple[int, int]:
        """How many utterances are being spoken, and how many wait."""
        with self._changed:
            return len(self._seated), len(self._waiting)

    def _run(self) -> None:
        while self._wait_for_work():
            try:
                self._let_leave()
                self._let_join()
                self._step()
            except Exception:
                log.exception("The engine failed; what was being spoken is lost, and another engine takes over.")
                self._lose_seated("The model failed in the middle of an utterance; the server's log says why.")
                self._engine = self._build()
        self._lose_seated(ENDING)
        self._lose_waiting(ENDING)

    def _wait_for_work(self) -> bool:
        """Wait until there is something to do; return whether to go on."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closing or self._waiting or self._seated)
            return not self._is_closing

    def _let_leave(self) -> None:
        """Free the rows of those nobody listens to, and forget those who left while they waited."""
        for row in [row for row, utterance in self._seated.items() if not utterance.is_wanted]:
            self._engine.leave(row)
            self._unseat(row)
        with self._changed:
            self._waiting = deque(utterance for utterance in self._waiting if utterance.is_wanted)

    def _let_join(self) -> None:
        with self._changed:
            n_joining = min(len(self._engine.free_rows), len(self._waiting))
            joining = [self._waiting.popleft() for _ in range(n_joining)]
            # Seated before they are prefilled, so that a failure reaches them too.
            self._seated |= dict(zip(self._engine.free_rows, joining, strict=False))
        if joining:
            self._engine.join(
                [utterance.opening for utterance in joining],
                [utterance.max_new_tokens for utterance in joining],
                [utterance.seed for utterance in joining],
            )

    def _step(self) -> None:
        """Launch steps, and tell of the one that was launched long enough before."""
        if self._seated:
            for _ in range(self._engine.n_unread, self._n_ahead + 1):
                self._engine.step()
            self._hand_out(self._engine.read_step())

    def _hand_out(self, spoken: list[Spoken]) -> None:
        for row, tokens, has_ended in spoken:
            self._seated[row].tell(tokens)
            if has_ended:
                self._seated[row].tell(None)
                self._unseat(row)

    def _unseat(self, row: int) -> None:
        with self._changed:
            del self._seated[row]

    def _lose_seated(self, message: str) -> None:
        """Let the utterances that are being spoken end with an error."""
        with self._changed:
            lost = list(self._seated.values())
            self._seated.clear()
        for utterance in lost:
            utterance.tell(SpeechFailedError(message))

    def _lose_waiting(self, message: str) -> None:
        """Let the utterances that wait for a row end with an error."""
        with self._changed:
            lost = list(self._waiting)
            self._waiting.clear()
        for utterance in lost:
            utterance.tell(SpeechFailedError(message))
