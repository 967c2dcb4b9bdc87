"""A search for the best configuration by Optuna, kept in the sweep's folder."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.plumbing.files import write_json
from pipeline.sweeping.configuration import SweepConfig
from pipeline.sweeping.space import Dimension

if TYPE_CHECKING:
    import optuna

STORE = "optuna.db"
# Of a job: the trial that it belongs to.
TRIAL = "trial.json"


def require_optuna() -> Any:
    """Optuna, which is an extra.

    Raises:
        ModuleNotFoundError: with the command that installs it.
    """
    try:
        import optuna
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "sweep=optuna needs the package optuna: pip install 'melisma[sweeps]'; without it every combination runs."
        ) from None
    optuna.logging.set_verbosity(logging.WARNING)
    return optuna


def open_study(folder: Path, name: str, sampler: Any = None, pruner: Any = None, goal: str = "minimize") -> Any:
    """The study in a sweep's folder, made if there is none."""
    optuna = require_optuna()
    storage = f"sqlite:///{(folder / STORE).resolve()}"
    return optuna.create_study(
        storage=storage, sampler=sampler, pruner=pruner, study_name=name, direction=goal, load_if_exists=True
    )


class Search:
    """The trials of a search, of this command and of earlier ones.

    Args:
        folder: of the sweep.
        sweep: what it is asked for.
        space: what is searched.
    """

    def __init__(self, folder: Path, sweep: SweepConfig, space: Sequence[Dimension]) -> None:
        self._optuna = require_optuna()
        self._folder, self._sweep, self._space = folder, sweep, space
        study = open_study(folder, sweep.objective, goal=sweep.goal)
        # A search that goes on draws other numbers than it began with.
        sampler = self._optuna.samplers.TPESampler(seed=len(study.trials), constant_liar=sweep.at_once > 1)
        self._study = open_study(folder, sweep.objective, sampler, goal=sweep.goal)
        states = self._optuna.trial.TrialState
        ended = [t for t in self._study.trials if t.state in (states.COMPLETE, states.PRUNED)]
        self._begun = [t for t in self._study.trials if t.state == states.RUNNING]
        self.n_left = max(0, sweep.trials - len(ended))
        for params in self._failed()[: max(0, self.n_left - len(self._begun))]:
            self._study.enqueue_trial(params)

    def _failed(self) -> list[dict[str, Any]]:
        """The settings of trials that have failed, and were not tried with success since."""
        states = self._optuna.trial.TrialState
        failed: list[dict[str, Any]] = []
        for trial in self._study.trials:
            if trial.params in failed:
                failed.remove(trial.params)
            if trial.state == states.FAIL:
                failed.append(trial.params)
        return failed

    def next_batch(self) -> "list[optuna.Trial]":
        """The next trials: those that were interrupted, those that had failed, new ones."""
        n = min(self.n_left, self._sweep.at_once)
        self.n_left -= n
        begun, self._begun = self._begun[:n], self._begun[n:]
        trials = [self._optuna.trial.Trial(self._study, trial._trial_id) for trial in begun]
        return trials + [self._study.ask() for _ in range(n - len(trials))]

    def overrides(self, trial: "optuna.Trial") -> list[str]:
        """What a trial asks a job for."""
        return [f"{dimension.key}={dimension.suggest(trial)}" for dimension in self._space]

    def enter(self, trial: "optuna.Trial", job: Path) -> None:
        """Let the training of a job report to its trial, and be stopped for it."""
        if self._sweep.prune:
            write_json(
                job / TRIAL, {"study": self._sweep.objective, "trial": trial._trial_id, "goal": self._sweep.goal}
            )

    def tell(self, trial: "optuna.Trial", objective: float | None, pruned: bool) -> None:
        """Tell how a trial has ended: with an objective, stopped, or, with neither, failed."""
        states = self._optuna.trial.TrialState
        if pruned:
            self._study.tell(trial, state=states.PRUNED)
        elif objective is None:
            self._study.tell(trial, state=states.FAIL)
        else:
            self._study.tell(trial, objective)
