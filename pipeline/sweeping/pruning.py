"""A training that a search has begun is stopped when it is worse than others were at the same step."""

from pathlib import Path

import lightning as L  # noqa: N812

from pipeline.plumbing.files import read_json, write_json
from pipeline.sweeping.configuration import GOALS
from pipeline.sweeping.objective import PRUNED
from pipeline.sweeping.search import TRIAL, open_study, require_optuna

# Trainings that have to end before any is stopped.
STARTING_UP = 5


class StopTheWorse(L.Callback):
    """Reports every validation loss to the job's trial, and stops the training when its pruner says so.

    The training then ends as one that has reached its last step.

    Args:
        job: the job's folder, which names the trial.
    """

    def __init__(self, job: Path) -> None:
        optuna, values = require_optuna(), read_json(job / TRIAL)
        pruner = optuna.pruners.MedianPruner(n_startup_trials=STARTING_UP)
        study = open_study(job.parent, values["study"], pruner=pruner, goal=values["goal"])
        self._trial = optuna.trial.Trial(study, values["trial"])
        # A pruner takes intermediate values as it does the objective.
        self._sign = 1 if values["goal"] == GOALS[0] else -1
        self._job = job

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Report, and decide; all ranks stop together."""
        if trainer.state.fn != "fit" or trainer.sanity_checking or trainer.global_step >= trainer.max_steps:
            return
        worse = False
        if trainer.is_global_zero:
            self._trial.report(self._sign * float(trainer.callback_metrics["val/loss"]), trainer.global_step)
            worse = self._trial.should_prune()
        if trainer.strategy.reduce_boolean_decision(worse, all=False):
            trainer.should_stop = True
            if trainer.is_global_zero:
                write_json(self._job / PRUNED, {"step": trainer.global_step})


def pruning(job: Path) -> list[L.Callback]:
    """The callback of a job that belongs to a search; none of others."""
    return [StopTheWorse(job)] if (job / TRIAL).exists() else []
