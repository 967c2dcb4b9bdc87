"""The settings that the jobs of a sweep differ in, as columns."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pipeline.sweeping.grouping import Group
from pipeline.sweeping.job import key_of

# From here on, largest over smallest, values are spread over orders of magnitude.
WIDE_RANGE = 20.0


@dataclass(frozen=True)
class Setting:
    """A setting and its value in each configuration, "" where it was not given."""

    key: str
    values: tuple[str, ...]

    @cached_property
    def numbers(self) -> np.ndarray | None:
        """The values as numbers [N]; None of names."""
        try:
            return np.array([float(value) for value in self.values])
        except ValueError:
            return None

    @cached_property
    def names(self) -> list[str]:
        """The different values of names, in the order of the alphabet."""
        return sorted(set(self.values))

    @property
    def is_logarithmic(self) -> bool:
        """Whether numbers are best told apart by their orders of magnitude."""
        numbers = self.numbers
        return numbers is not None and bool(numbers.min() > 0) and bool(numbers.max() / numbers.min() >= WIDE_RANGE)

    @property
    def places(self) -> np.ndarray:
        """Where the values lie between 0 and 1 [N]."""
        if self.numbers is None:
            places = np.array([float(self.names.index(value)) for value in self.values])
        else:
            places = np.log10(self.numbers) if self.is_logarithmic else self.numbers
        spread = float(np.ptp(places))
        return (places - places.min()) / spread if spread else np.full(len(places), 0.5)


def settings_of(groups: Sequence[Group]) -> list[Setting]:
    """The settings in which configurations differ."""
    rows = [{key_of(o): o.partition("=")[2] for o in group.configuration} for group in groups]
    keys = dict.fromkeys(key for row in rows for key in row)
    columns = [Setting(key, tuple(row.get(key, "") for row in rows)) for key in keys]
    return [column for column in columns if len(set(column.values)) > 1]
