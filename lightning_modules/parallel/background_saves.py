"""Saves that training does not wait for: copied at once, written one after another behind its back."""

import logging
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions

log = logging.getLogger(__name__)

# The best checkpoint and the one to go on from fall on the same step: both may wait in memory, and no third.
MOST_UNDER_WAY = 2


class CheckpointError(RuntimeError):
    """A checkpoint could not be written."""


class BackgroundSaves:
    """Writes in a thread of its own, in the order in which that was asked for, on every rank alike.

    A step that asks for a save waits only where `MOST_UNDER_WAY` saves before it are not written yet: each of them is a
    copy in memory. That is said once, since the remedy is to save less often.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoints")
        self._saves: deque[tuple[Path, Future[None]]] = deque()
        self._said_slow = False

    def save(self, path: Path, write: Callable[[], None]) -> None:
        """Have `write` called, which writes the checkpoint `path`.

        Raises:
            CheckpointError: when a save before failed.
        """
        while self._saves and self._saves[0][1].done():
            self._finish_first()
        if len(self._saves) >= MOST_UNDER_WAY:
            self._wait_for_room()
        self._saves.append((path, self._thread.submit(write)))

    def afterwards(self, job: Callable[[], None]) -> None:
        """Have `job` called when all that was asked for so far is written."""
        self._thread.submit(job)

    def wait(self) -> None:
        """Return when nothing is under way.

        Raises:
            CheckpointError: when a save failed; says which, and why. Those after it are written nevertheless.
        """
        try:
            while self._saves:
                self._finish_first()
        finally:
            self._thread.submit(_nothing).result()

    def _wait_for_room(self) -> None:
        begun = time.monotonic()
        while len(self._saves) >= MOST_UNDER_WAY:
            self._finish_first()
        if not self._said_slow:
            self._said_slow = True
            log.warning(
                "Training waited %.0f s for a checkpoint: they are asked for faster than the disk takes them; raise "
                "trainer.checkpoint_every_steps or trainer.val_every_steps.",
                time.monotonic() - begun,
            )

    def _finish_first(self) -> None:
        path, future = self._saves.popleft()
        try:
            future.result()
        except (Exception, CheckpointException) as error:
            raise CheckpointError(
                f"The checkpoint {path} could not be written: {_reason(error)}. The one before it is untouched."
            ) from error


def copy_to_cpu(values: Any) -> Any:
    """A copy of nested dictionaries, lists and tensors that training does not change; tensors are on the CPU.

    Tensors that share memory do so in the copy.
    """
    return DefaultStager(StagingOptions(False, False, False, False)).stage(values)


def _nothing() -> None:
    """What is waited for, to know that everything before it is done."""


def _reason(error: BaseException) -> str:
    if isinstance(error, CheckpointException):
        return "; ".join(f"rank {rank}: {_reason(failure[0])}" for rank, failure in sorted(error.failures.items()))
    return f"{type(error).__name__}: {error}"
