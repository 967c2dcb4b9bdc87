"""What a search may choose from."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import optuna

# Of numbers that are tried.
DIGITS = 4


@dataclass(frozen=True)
class Choice:
    """One of several values, as they were typed."""

    key: str
    values: tuple[str, ...]

    def suggest(self, trial: "optuna.Trial") -> str:
        """The value of a trial."""
        return str(trial.suggest_categorical(self.key, self.values))


@dataclass(frozen=True)
class Range:
    """A number between two others, whole where both are.

    Attributes:
        key: the setting.
        low: the smallest.
        high: the largest.
        is_logarithmic: whether orders of magnitude are equally likely.
    """

    key: str
    low: float
    high: float
    is_logarithmic: bool

    def __post_init__(self) -> None:
        if self.low >= self.high:
            raise ValueError(f"{self.key} is searched from {self.low} to {self.high}; give the smaller one first.")
        if self.is_logarithmic and self.low <= 0:
            raise ValueError(f"{self.key} is searched by orders of magnitude from {self.low}; begin above 0.")

    def suggest(self, trial: "optuna.Trial") -> str:
        """The value of a trial."""
        if isinstance(self.low, int) and isinstance(self.high, int):
            return str(trial.suggest_int(self.key, self.low, self.high, log=self.is_logarithmic))
        suggested = trial.suggest_float(self.key, self.low, self.high, log=self.is_logarithmic)
        # More digits would only make names and commands longer.
        return repr(min(max(float(f"{suggested:.{DIGITS}g}"), self.low), self.high))


Dimension = Choice | Range
