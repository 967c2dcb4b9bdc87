"""Work in shards: what an engine spreads over processes and machines, knowing nothing of what is done."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar


class ShardedWork(ABC):
    """Shards, numbered from 0, each computed from files and written as one, whole or not at all.

    Whoever computes a shard, and however often, the same bytes are written: an engine that is in doubt does it again.
    It pickles small, since it goes to every worker.

    Attributes:
        description: stands before the progress bar.
        unit: of what `size` counts.
        step: of the configuration that does this work by hand, where shards of it can be done by hand.
    """

    description: ClassVar[str]
    unit: ClassVar[str]
    step: ClassVar[str] = ""

    @property
    @abstractmethod
    def n_shards(self) -> int:
        """How many there are."""

    @abstractmethod
    def __call__(self, number: int) -> None:
        """Compute and write a shard."""

    @abstractmethod
    def written(self) -> set[int]:
        """The shards that are there."""

    @abstractmethod
    def name(self, number: int) -> str:
        """What a shard is called in messages."""

    def size(self, number: int) -> int:
        """How much a shard holds, in the unit of the progress bar."""
        return 1

    def pending(self) -> Sequence[int]:
        """The shards that are to be computed."""
        written = self.written()
        return [number for number in range(self.n_shards) if number not in written]

    def after_death(self, number: int) -> None:
        """Compute and write a shard that kills its process whenever it is computed, or say why that cannot be.

        Raises:
            RuntimeError: it cannot.
        """
        raise RuntimeError(
            f"{self.description.capitalize()} {self.name(number)} kills its process again and again, as the system "
            "does where memory runs out; give each process more memory, with fewer of them (data.workers). The other "
            "shards are kept: the same command goes on from there."
        )

    def missing(self) -> list[int]:
        """The shards that are not there, although all of them should be."""
        written = self.written()
        return [number for number in range(self.n_shards) if number not in written]
