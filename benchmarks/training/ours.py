"""Our own training, through Lightning as `pipeline.train` runs it, timed step by step."""

import logging
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import lightning as L  # noqa: N812
import torch
from lightning.pytorch.loggers.logger import DummyLogger
from torch import Tensor

from benchmarks.clock import StepClock
from benchmarks.peers.peer import Opponent
from benchmarks.training.profile import StepLabels, StepProfile
from benchmarks.training.workload import RandomTokens, Workload
from lightning_modules.language_model import LanguageModel
from lightning_modules.trainer import build_trainer, model_device

log = logging.getLogger(__name__)

# Steps whose losses are read, and after which nothing is to be compiled any more.
FIRST_STEPS = 3


class Course(L.Callback):
    """Times the first `n_steps` steps, each from the fetching of its batch to that of the next, and profiles some more.

    Args:
        clock: of the steps.
        n_steps: that are timed.
        opponent: takes its turns between ours, while the clock stands; None: nobody does.
        profile: of the steps after those; None: there are none.

    Attributes:
        losses: of the first steps.
        recompilations: graphs that were compiled after them.
    """

    def __init__(
        self, clock: StepClock, n_steps: int, opponent: Opponent | None = None, profile: StepProfile | None = None
    ) -> None:
        self.clock = clock
        self.n_steps = n_steps
        self.opponent = opponent
        self.profile = profile
        self.losses: list[Tensor] = []
        self.recompilations = 0
        self._n_graphs = 0

    @property
    def max_steps(self) -> int:
        """Of the whole training: the last step that is timed ends with the beginning of another."""
        return self.n_steps + 1 + (self.profile.n_steps if self.profile is not None else 0)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Show the opponent our weights."""
        assert isinstance(pl_module, LanguageModel)
        log.info("Our decoder has its weights.")
        if self.opponent is not None:
            self.opponent.meet(pl_module.decoder)
            log.info("They are kept for %s.", self.opponent.kind.NAME)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """End the step before, and begin one."""
        if self.clock.is_running:
            self.clock.stop()
            self._between_steps()
        if self.clock.n_steps < self.n_steps:
            self.clock.start()
        elif self.profile is not None and batch_idx == self.n_steps:
            trainer.profiler = StepLabels()
            self.profile.start()
        elif self.profile is not None and batch_idx == self.n_steps + self.profile.n_steps:
            self.profile.stop()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the first losses."""
        if len(self.losses) < FIRST_STEPS:
            assert isinstance(pl_module, LanguageModel)
            self.losses.append(pl_module.global_means(outputs["sums"])["train/loss"])

    def _between_steps(self) -> None:
        n_steps = self.clock.n_steps
        if n_steps == FIRST_STEPS:
            self._n_graphs = compiled_graphs()
        self.recompilations = compiled_graphs() - self._n_graphs
        if self.opponent is not None and n_steps % self.opponent.turn == 0:
            self.opponent.catch_up(n_steps)


def train_ours(workload: Workload, course: Course, folder: Path) -> LanguageModel:
    """Run the training; what it prints goes to stderr.

    Args:
        workload: the training, a step longer than `course` times.
        course: what watches it.
        folder: for files that are written by the way.
    """
    L.seed_everything(workload.seed, verbose=False)
    with torch.device(model_device(workload.strategy)):
        model = LanguageModel(
            workload.decoder,
            workload.objective,
            workload.optimizer,
            workload.schedule,
            workload.trainer.max_steps,
            workload.seed,
            workload.trainer.attend_across_documents,
            workload.trainer.recompute,
            workload.trainer.compile,
            workload.trainer.cuda_graph,
        )
    with redirect_stdout(sys.stderr):
        trainer = build_trainer(
            workload.trainer, workload.strategy, workload.precision, DummyLogger(), folder, [course]
        )
        trainer.fit(model, RandomTokens(workload))
    return model


def compiled_graphs() -> int:
    """Graphs that torch.compile has compiled in this process so far."""
    if "torch._dynamo.utils" not in sys.modules:  # importing it takes seconds
        return 0
    return sys.modules["torch._dynamo.utils"].counters["stats"]["unique_graphs"]
