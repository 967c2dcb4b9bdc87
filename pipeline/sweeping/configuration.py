"""What a sweep is asked for besides its values. Light: needs no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from pipeline.configuration.settings import read_settings

GOALS = ("minimize", "maximize")
OPTUNA = "optuna"
SEARCHES = ("grid", OPTUNA)
# Figures of a training, and what those of an evaluation begin with.
OF_TRAINING, OF_EVALUATION = ("val/loss", "val/loss_last", "train/loss"), ("eval/", "audio/", "judge/")


@dataclass(frozen=True)
class SweepConfig:
    """How jobs are made of values, and what they are compared by.

    Attributes:
        seeds: trainings of each configuration.
        objective: the figure of the training's or the evaluation's metrics.json that jobs are compared by.
        goal: whether a small one is good, or a large one.
        search: `grid`, every combination, or `optuna`, which chooses among them.
        trials: configurations that a search tries.
        at_once: of them in a batch.
        prune: whether a search stops trainings that are worse than others were at the same step.
    """

    LARGEST: ClassVar[Mapping[str, float]] = {"seeds": 1000, "trials": 100_000, "at_once": 10_000}

    seeds: int
    objective: str
    goal: str
    search: str
    trials: int
    at_once: int
    prune: bool

    def __post_init__(self) -> None:
        for name in ("seeds", "trials", "at_once"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it takes a whole number of 1 or more.")
        if self.search not in SEARCHES:
            raise ValueError(f"search is '{self.search}'; choose {' or '.join(SEARCHES)}.")
        if self.goal not in GOALS:
            raise ValueError(f"goal is '{self.goal}'; choose {' or '.join(GOALS)}.")
        if self.objective not in OF_TRAINING and not self.needs_evaluation:
            raise ValueError(
                f"objective is '{self.objective}'; it takes {', '.join(OF_TRAINING)}, or a figure of the evaluation, "
                "as eval/loss or audio/fd."
            )

    @property
    def needs_evaluation(self) -> bool:
        """Whether jobs are evaluated after their training."""
        return self.objective.startswith(OF_EVALUATION)

    @property
    def sign(self) -> int:
        """1 where a small objective is good, -1 where a large one is."""
        return 1 if self.goal == "minimize" else -1


@dataclass(frozen=True)
class SweepReportConfig:
    """Which sweep is shown, and where.

    Attributes:
        parent: one name: the sweep's folder, or the id of its run.
        page: the folder that the page is written to; None: the sweep's own.
    """

    parent: tuple[str, ...]
    page: str | None

    def __post_init__(self) -> None:
        if len(self.parent) != 1:
            raise ValueError(
                f"{len(self.parent)} sweeps are named; name one, by its folder or by the id of its MLflow run, as in "
                "`python -m pipeline.sweep_report multirun/lr-1a2b3c`."
            )


SWEEP_REPORT_KEYS = tuple(field.name for field in fields(SweepReportConfig))


def read_sweep_report(values: Mapping[str, Any]) -> SweepReportConfig:
    """The settings of the sweep's page in a composed configuration.

    Raises:
        ValueError: naming the key that cannot be, and the remedy.
    """
    return read_settings(SweepReportConfig, {key: values[key] for key in SWEEP_REPORT_KEYS if key in values}, "")
