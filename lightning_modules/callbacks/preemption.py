"""A job that is asked to leave saves first: SIGTERM, and SLURM's warning, SIGUSR1."""

import logging
import os
import signal
import threading
import time
from types import FrameType
from typing import Any

import lightning as L  # noqa: N812
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor

from lightning_modules.callbacks.resume import ResumeCheckpoint
from lightning_modules.callbacks.saves import wait_for_saves

log = logging.getLogger(__name__)

# One request often arrives twice: from the scheduler, and from the launcher that passes on its own.
SAME_REQUEST = 5.0


class Preempted(SystemExit):
    """Training has saved and left, because it was told to: the process ends with code 0, unless somebody catches it."""

    def __init__(self, step: int) -> None:
        super().__init__(0)
        self.step = step

    def __str__(self) -> str:
        return f"saved and stopped at step {self.step}, as the signal asked"


class Preemption(Checkpoint):
    """Saves at the end of the optimizer step in which a signal came, waits until it is written, and ends the process.

    The signal may reach one rank alone, or all at different times. After every step the ranks begin to exchange whether
    one came, and learn the answer at the end of the next: nobody waits, all leave at the same step, and that is the
    first or second after the signal. It is saved as ResumeCheckpoint does, when the next one begins.

    A second signal, more than a few seconds after the first, ends the process at once. Lightning's own handlers, which
    communicate wherever they interrupt the process, or save in the middle of a step, are replaced for as long as
    training lasts; its Trainer puts back those from before.

    A checkpoint callback, because Lightning calls those last: this one has to stand behind `resume`.

    Args:
        resume: what saves.
    """

    def __init__(self, resume: ResumeCheckpoint) -> None:
        self.resume = resume
        self._signalled_at: float | None = None
        self._step = 0
        self._leaving = False
        self._group: dist.ProcessGroup | None = None
        self._exchange: tuple[dist.Work, Tensor] | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Listen."""
        self._signalled_at, self._leaving, self._exchange = None, False, None
        self._step = trainer.global_step
        if trainer.world_size > 1:
            # On the CPU, where a GPU's queue need not run empty before a number can be read.
            self._group = dist.new_group(backend="gloo")
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._handle)
            if "SLURM_JOB_ID" in os.environ:
                signal.signal(signal.SIGUSR1, self._handle)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Save the step before and leave, now that it is validated, if it is to be, and logged."""
        if self._leaving:
            self._save(trainer)
            raise Preempted(trainer.global_step)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """After an optimizer step: learn whether a signal came."""
        if trainer.global_step != self._step:
            self._step = trainer.global_step
            self._leaving = self._all_know()

    def _all_know(self) -> bool:
        """Whether any rank knew of a signal one step ago; the same answer on all."""
        if self._group is None:
            return self._signalled_at is not None
        known = False
        if self._exchange is not None:
            work, flag = self._exchange
            work.wait()
            known = bool(flag)
        flag = torch.tensor(int(self._signalled_at is not None))
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

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._signalled_at is None:
            self._signalled_at = now
        elif now - self._signalled_at > SAME_REQUEST:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
