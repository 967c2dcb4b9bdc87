"""Catches losses and gradients that are not finite, or that leap, before they reach the weights."""

import logging
import math
from collections import deque
from functools import partial
from typing import Any, NamedTuple

import lightning as L  # noqa: N812
import numpy as np
import torch
from torch import Tensor

from lightning_modules.configuration import AnomalyConfig
from lightning_modules.data_module import SpeechTokens
from lightning_modules.language_model import LanguageModel
from lightning_modules.logged_steps import is_logged
from lightning_modules.precision.plugins import LossScalingPrecision

log = logging.getLogger(__name__)

# More than these micro-batches are not listed one by one.
MOST_NAMED = 8


class AnomalyError(RuntimeError):
    """Training stopped at a loss or gradient that it was told to stop at."""


class Anomaly(NamedTuple):
    """What is wrong with an optimizer step, in words, and what is done about it: stop or skip."""

    problem: str
    answer: str
    setting: str


class AnomalyGuard(L.Callback):
    """Judges every optimizer step between its last backward pass and the optimizer, alike on all ranks.

    A skipped step leaves weights, optimizer state, routing biases and the parameters' average as they were. It is a
    step nevertheless: the learning rate goes on along its schedule, and the data to the next windows. Position,
    schedule and `max_steps` so stay functions of one number, and a skip shifts nothing of what comes after.

    Single infinite gradients under FP16's loss scaling are not judged: its scale is searched for by overflows, and such
    a step is skipped by the scaling itself. Scale and overflows are logged, and too many in a row stop the training: no
    scale helps then. A loss that is not finite is judged there too.

    The step's loss and gradient norm are read by the host once an optimizer step: the one wait for a GPU that this
    adds, since whether to step has to be known before the step. Which micro-batch was at fault is only asked once one
    was.

    Args:
        config: what to do about what.
    """

    def __init__(self, config: AnomalyConfig) -> None:
        self.config = config
        self.skipped = 0
        self._consecutive = 0
        self.overflows = 0
        self._consecutive_overflows = 0
        self._losses: deque[float] = deque(maxlen=config.spike_window)
        self._norms: deque[float] = deque(maxlen=config.spike_window)
        self._batch_idx = 0
        self._micro_batches: list[tuple[int, Tensor]] = []

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Be asked by the model once gradients are complete."""
        assert isinstance(pl_module, LanguageModel)
        pl_module.check_gradients = partial(self._check, trainer, pl_module)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Let go of the model."""
        assert isinstance(pl_module, LanguageModel)
        pl_module.check_gradients = None

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Note which micro-batch is under way."""
        self._batch_idx = batch_idx

    def on_before_backward(self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor) -> None:
        """Keep the micro-batch's loss, without looking at it: this rank's share of the step's."""
        self._micro_batches.append((self._batch_idx, loss.detach()))

    def state_dict(self) -> dict[str, Any]:
        """What later steps are compared with, and how many were skipped; plain numbers."""
        return {
            "losses": list(self._losses),
            "norms": list(self._norms),
            "skipped": self.skipped,
            "consecutive": self._consecutive,
            "overflows": self.overflows,
            "consecutive_overflows": self._consecutive_overflows,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on judging as before an interruption."""
        self._losses.extend(state_dict["losses"])
        self._norms.extend(state_dict["norms"])
        self.skipped, self._consecutive = state_dict["skipped"], state_dict["consecutive"]
        self.overflows = state_dict.get("overflows", 0)
        self._consecutive_overflows = state_dict.get("consecutive_overflows", 0)

    def _check(self, trainer: L.Trainer, model: LanguageModel, optimizer: torch.optim.Optimizer, norm: Tensor) -> None:
        """Judge the step with this total norm of gradients; drop them if it is skipped.

        Raises:
            AnomalyError: the step is one to stop at.
        """
        batches, losses = self._take_micro_batches(trainer)
        # Reduced together, the two numbers are the same on every rank, and so is what follows from them.
        share = torch.stack((losses.sum(), norm.to(losses) / trainer.world_size))
        loss, total_norm = torch.as_tensor(trainer.strategy.reduce(share, reduce_op="sum")).tolist()
        scales_loss = isinstance(trainer.precision_plugin, LossScalingPrecision)
        overflowed = scales_loss and math.isfinite(loss) and not math.isfinite(total_norm)
        anomaly = None if overflowed else self._judge(loss, total_norm)
        model.step_skipped = overflowed or anomaly is not None
        if isinstance(trainer.precision_plugin, LossScalingPrecision):
            self._count_overflow(overflowed, trainer, model, trainer.precision_plugin.scaler.value)
        if anomaly is None:
            if not overflowed:
                self._accept(loss, total_norm)
        else:
            self._answer(anomaly, trainer, _describe(trainer, batches, losses))
            optimizer.zero_grad(set_to_none=True)
        if "skip" in (self.config.nonfinite, self.config.spike) and is_logged(trainer, trainer.global_step + 1):
            model.log("train/skipped_steps", torch.tensor(float(self.skipped)))

    def _count_overflow(self, overflowed: bool, trainer: L.Trainer, model: LanguageModel, scale: float) -> None:
        """Log the loss scale of this step, and the overflows so far.

        Raises:
            AnomalyError: there were too many overflows in a row.
        """
        self.overflows += overflowed
        self._consecutive_overflows = self._consecutive_overflows + 1 if overflowed else 0
        model.log("train/loss_scale", scale)
        model.log("train/overflows", float(self.overflows))
        if self._consecutive_overflows > self.config.max_consecutive_overflows:
            raise AnomalyError(
                f"The gradients of optimizer step {trainer.global_step} are not finite, and neither were those of the "
                f"{self.config.max_consecutive_overflows} steps before it, though the loss scale was halved each time, "
                f"to {scale:g}. No scale helps against this, and nothing was learnt since. Use precision=bf16 or "
                "fp32, lower optimizer.lr, or raise trainer.anomalies.max_consecutive_overflows."
            )

    def _take_micro_batches(self, trainer: L.Trainer) -> tuple[list[int], Tensor]:
        """The step's micro-batches by Lightning's count, and their losses [A] on this rank."""
        batches = [batch for batch, _ in self._micro_batches]
        losses = torch.stack([loss for _, loss in self._micro_batches]).float()
        self._micro_batches = []
        plugin = trainer.precision_plugin
        return batches, losses / plugin.scaler.value if isinstance(plugin, LossScalingPrecision) else losses

    def _judge(self, loss: float, norm: float) -> Anomaly | None:
        if not (math.isfinite(loss) and math.isfinite(norm)):
            problem = f"has a loss of {loss:g} and a gradient norm of {norm:g}"
            return Anomaly(problem, self.config.nonfinite, "nonfinite")
        if self.config.spike == "ignore":
            return None
        for name, value, earlier in (("loss", loss, self._losses), ("gradient norm", norm, self._norms)):
            if len(earlier) < self.config.spike_window // 2:
                continue
            mean, deviation = float(np.mean(earlier)), float(np.std(earlier, ddof=1))
            if value > mean + self.config.spike_deviations * deviation:
                problem = f"has a {name} of {value:g}, where the last {len(earlier)} steps had {mean:g} ± {deviation:g}"
                return Anomaly(problem, self.config.spike, "spike")
        return None

    def _accept(self, loss: float, norm: float) -> None:
        self._consecutive = 0
        if self.config.spike != "ignore":
            self._losses.append(loss)
            self._norms.append(norm)

    def _answer(self, anomaly: Anomaly, trainer: L.Trainer, blame: str) -> None:
        """Count and report a skip.

        Raises:
            AnomalyError: the answer is to stop, or there were too many skips in a row.
        """
        report = f"Optimizer step {trainer.global_step} {anomaly.problem}. {blame}"
        if anomaly.answer == "stop":
            raise AnomalyError(
                f"{report} It changed nothing, and the last checkpoint is from before. Look at these windows, lower "
                f"optimizer.lr, or go on from the checkpoint with trainer.anomalies.{anomaly.setting}=skip."
            )
        self.skipped += 1
        self._consecutive += 1
        if self._consecutive > self.config.max_consecutive_skips:
            raise AnomalyError(
                f"{report} {self.config.max_consecutive_skips} steps before it were skipped in a row: this does not "
                "pass by itself. Look at these windows, lower optimizer.lr, or raise "
                "trainer.anomalies.max_consecutive_skips."
            )
        if trainer.is_global_zero:
            log.warning("%s The step is skipped.", report)


def _describe(trainer: L.Trainer, batches: list[int], losses: Tensor) -> str:
    """Which micro-batches of which ranks made a step what it is; all ranks have to ask.

    They are those whose loss is not finite. Where every loss is, the largest is named, and all windows of the step: a
    gradient does not say which of them it came from.
    """
    shares = torch.as_tensor(trainer.strategy.all_gather(losses)).reshape(-1, len(batches)).tolist()
    table = [
        (share, rank, place, batch)
        for rank, rank_shares in enumerate(shares)
        for place, (share, batch) in enumerate(zip(rank_shares, batches, strict=True))
    ]
    at_fault = [entry for entry in table if not math.isfinite(entry[0])]
    lines = []
    for share, rank, place, batch in at_fault[:MOST_NAMED]:
        name = f"Micro-batch {place} of {len(batches)} on rank {rank}"
        lines.append(f"{name}{_windows(trainer, [(batch, rank)])} has a loss of {share:g}.")
    if len(at_fault) > MOST_NAMED:
        lines.append(f"So have {len(at_fault) - MOST_NAMED} more.")
    if not at_fault:
        everything = _windows(trainer, [(batch, rank) for _, rank, _, batch in table])
        share, rank, place, batch = max(table)
        largest = f"micro-batch {place} on rank {rank}{_windows(trainer, [(batch, rank)])}"
        lines.append(f"Its {len(table)} micro-batches{everything} have finite losses, the largest {largest}.")
    return " ".join(lines)


def _windows(trainer: L.Trainer, places: list[tuple[int, int]]) -> str:
    """The training windows of micro-batches (batch, rank), which follow one another; nothing for other data."""
    data = getattr(trainer, "datamodule", None)
    if not isinstance(data, SpeechTokens):
        return ""
    windows = [window for batch, rank in places for window in data.windows_of(batch, rank)]
    return f" (windows {min(windows)} to {max(windows)})"
