"""What is compared, and what is asked of a difference. Light: needs no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from pipeline.configuration.settings import read_settings

PRINTED = ("table", "json")
# They go by letters.
MOST_MODELS = 26
# Trainings that lie further apart than ten times what they measure tell nothing.
LARGEST_SPREAD = 10


@dataclass(frozen=True)
class ComparisonConfig:
    """When one model is better than another.

    Attributes:
        decisive: metrics of which one has to be better, and none may be worse.
        training_spread: the relative standard deviation of each metric between trainings of other seeds, 0 where it is
            not named; None: these very weights are compared.
    """

    decisive: tuple[str, ...]
    training_spread: Mapping[str, float] | None

    def __post_init__(self) -> None:
        if not self.decisive:
            raise ValueError("decisive is empty; name a metric, as eval/loss.")
        for name, spread in (self.training_spread or {}).items():
            if not isinstance(spread, int | float) or not 0 <= spread <= LARGEST_SPREAD:
                raise ValueError(
                    f"training_spread.{name} is {spread!r}; it takes a fraction from 0 to {LARGEST_SPREAD}."
                )

    def spread_of(self, name: str) -> float:
        """How far trainings lie apart in one metric."""
        return (self.training_spread or {}).get(name, 0.0)


@dataclass(frozen=True)
class CompareConfig:
    """What the command compares, and what it leaves.

    Attributes:
        compared: names of models; the first is the one that the others are held against.
        output: `table` or `json`.
        page: the folder that the page is written to; None: none.
        promote: whether the second model becomes the champion if it is better.
    """

    compared: tuple[str, ...]
    output: str
    page: str | None
    promote: bool

    def __post_init__(self) -> None:
        if self.output not in PRINTED:
            raise ValueError(f"output is '{self.output}'; choose {' or '.join(PRINTED)}.")
        if len(self.compared) == 1:
            raise ValueError(f"{self.compared[0]} alone is no comparison; name two models or more.")
        if not self.compared:
            raise ValueError(
                "There is nothing to compare; name two models, each by an MLflow run, a DVC experiment, a git revision "
                "or a folder, as in `python -m pipeline.compare HEAD outputs`."
            )
        if len(self.compared) > MOST_MODELS:
            raise ValueError(f"{len(self.compared)} models are more than one table shows; name up to {MOST_MODELS}.")
        if self.promote and len(self.compared) > 2:
            raise ValueError("promote=true takes two models, the champion and the one that may follow it.")


COMPARE_KEYS = tuple(field.name for field in fields(CompareConfig))


def read_compare(values: Mapping[str, Any]) -> CompareConfig:
    """The command's own settings in a composed configuration.

    Raises:
        ValueError: naming the key that cannot be, and the remedy.
    """
    return read_settings(CompareConfig, {key: values[key] for key in COMPARE_KEYS if key in values}, "")
