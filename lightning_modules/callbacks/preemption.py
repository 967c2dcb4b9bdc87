"""A job that is asked to leave saves first: SIGTERM, and SLURM's warnings, after which it is queued again."""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from types import FrameType
from typing import Any

import lightning as L  # noqa: N812
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor

from lightning_modules.callbacks.requeue import is_preempted, queue_again
from lightning_modules.callbacks.resume import ResumeCheckpoint
from lightning_modules.callbacks.saves import wait_for_saves
from lightning_modules.kept_signals import KeptSignals, keeper

log = logging.getLogger(__name__)

Handler = Callable[[int, FrameType | None], Any]

# One request often arrives twice: from the scheduler, and from the launcher that passes on its own.
SAME_REQUEST = 5.0


# That SLURM warns by before a job's time is up: as users set it with `--signal`, and as submitit does.
WARNINGS = (signal.SIGUSR1, signal.SIGUSR2)


class Request(IntEnum):
    """What a signal asks for; of different ranks the greatest counts."""

    NONE = 0
    LEAVE = 1
    COME_BACK = 2


class Preempted(SystemExit):
    """Training has saved and left, because it was told to: the process ends with code 0, unless somebody catches it.

    Args:
        step: what was saved.
        come_back: has the job queued again, which ends this process; None: it is not to be.
    """

    def __init__(self, step: int, come_back: Callable[[], None] | None = None) -> None:
        super().__init__(0)
        self.step, self.come_back = step, come_back

    def __str__(self) -> str:
        return f"saved and stopped at step {self.step}, as the signal asked"


@contextmanager
def coming_back() -> Iterator[None]:
    """Within, a training may be preempted: when all else is in order, its job is queued again if it is to be.

    Raises:
        RuntimeError: it has come back as often as it may.
    """
    try:
        yield
    except Preempted as preempted:
        if preempted.come_back is not None:
            preempted.come_back()
        raise


class Preemption(Checkpoint):
    """Saves at the end of the optimizer step in which a signal came, waits until it is written, and ends the process.

    The signal may reach one rank alone, or all at different times. After every step the ranks begin to exchange whether
    one came, and learn the answer at the end of the next: nobody waits, all leave at the same step, and that is the
    first or second after the signal. It is saved as ResumeCheckpoint does, when the next one begins.

    The same signal once more, more than a few seconds after the first, ends the process at once. Lightning's own
    handlers, which communicate wherever they interrupt the process, or save in the middle of a step, are replaced for
    as long as training lasts; its Trainer puts back those from before.

    A signal that was kept from before (see `signals_kept`) counts as one of the first step.

    Under SLURM a warning, and a SIGTERM by which another job takes the machines, have the job queued again (see
    `coming_back`): by whoever listened to the warning before, as submitit does, or else by `scontrol requeue`.

    A checkpoint callback, because Lightning calls those last: this one has to stand behind `resume`.

    Args:
        resume: what saves.
    """

    def __init__(self, resume: ResumeCheckpoint) -> None:
        self.resume = resume
        self._signalled_at: dict[int, float] = {}
        self._asked = self._agreed = Request.NONE
        self._requeue: Handler | None = None
        self._kept: KeptSignals | None = None
        self._step = 0
        self._group: dist.ProcessGroup | None = None
        self._exchange: tuple[dist.Work, Tensor] | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Find who keeps signals that come before: Lightning puts handlers of its own in front."""
        self._kept = keeper()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Listen."""
        self._signalled_at, self._exchange = {}, None
        self._asked = self._agreed = Request.NONE
        self._step = trainer.global_step
        if trainer.world_size > 1:
            # On the CPU, where a GPU's queue need not run empty before a number can be read.
            self._group = dist.new_group(backend="gloo")
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._handle)
            if "SLURM_JOB_ID" in os.environ:
                self._listen_to_warnings()
            for number in self._kept.numbers if self._kept is not None else ():
                self._handle(number, None)

    def _listen_to_warnings(self) -> None:
        before = {number: signal.getsignal(number) for number in WARNINGS}
        listening = {
            number: handler
            for number, handler in before.items()
            if callable(handler) and not isinstance(handler, KeptSignals)
        }
        self._requeue = next(iter(listening.values()), None)
        for number in WARNINGS:
            # The second is nobody's but submitit's.
            if number == WARNINGS[0] or number in listening:
                signal.signal(number, self._handle)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Save the step before and leave, now that it is validated, if it is to be, and logged."""
        if self._agreed:
            self._save(trainer)
            comes_back = trainer.is_global_zero and (self._agreed == Request.COME_BACK or is_preempted())
            raise Preempted(trainer.global_step, self._come_back if comes_back else None)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """After an optimizer step: learn whether a signal came."""
        if trainer.global_step != self._step:
            self._step = trainer.global_step
            self._agreed = self._all_know()

    def _all_know(self) -> Request:
        """What any rank was asked for one step ago; the same answer on all."""
        if self._group is None:
            return self._asked
        known = Request.NONE
        if self._exchange is not None:
            work, flag = self._exchange
            work.wait()
            known = Request(int(flag))
        flag = torch.tensor(int(self._asked))
        work = dist.all_reduce(flag, dist.ReduceOp.MAX, group=self._group, async_op=True)
        assert work is not None
        self._exchange = work, flag
        return known

    def _save(self, trainer: L.Trainer) -> None:
        self.resume.save(trainer)
        wait_for_saves(trainer)
        if trainer.is_global_zero:
            log.info(
                "Told to leave: saved step %d of %d in %s. The same command goes on from there.",
                trainer.global_step,
                trainer.max_steps,
                self.resume.folder,
            )

    def _come_back(self) -> None:
        """Have the job queued again.

        Raises:
            RuntimeError: it has come back as often as it may.
        """
        if self._requeue is None:
            refused = queue_again()
            log.info("%s", f"SLURM does not queue the job again: {refused}" if refused else "The job is queued again.")
            return
        try:
            self._requeue(WARNINGS[1], None)
        except SystemExit:
            log.info("The job is queued again.")
        except Exception as error:
            raise RuntimeError(f"{error} Training is saved; the same command goes on.") from error

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        self._asked = max(self._asked, Request.COME_BACK if number in WARNINGS else Request.LEAVE)
        first = self._signalled_at.setdefault(number, now)
        if now - first > SAME_REQUEST:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
