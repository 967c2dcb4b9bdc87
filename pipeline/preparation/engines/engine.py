"""What every engine is, and the one that needs nothing but this machine."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial

from tqdm import tqdm

from pipeline.plumbing.threads import single_threaded
from pipeline.plumbing.worker_processes import free_cores, map_apart
from pipeline.preparation.sharded import ShardedWork


class Engine(ABC):
    """Does work that comes in shards. Engines differ in where, and in nothing that is written."""

    def started(self) -> AbstractContextManager[None]:
        """Be ready for work, all of which is done inside."""
        return nullcontext()

    def run(self, work: ShardedWork) -> None:
        """Do all that is pending.

        Raises:
            RuntimeError: a shard could not be computed; those that could be are kept.
        """
        pending = work.pending()
        if pending:
            self.compute(work, pending)

    @abstractmethod
    def compute(self, work: ShardedWork, numbers: Sequence[int]) -> None:
        """Compute these shards, at least one."""


class LocalEngine(Engine):
    """Processes of this machine, or this one where it is to be one.

    Several start afresh for each step, and none of them computes in this process: what has used a GPU cannot be forked.

    Args:
        workers: how many; None: one a core.
    """

    def __init__(self, workers: int | None) -> None:
        self.workers = workers

    def compute(self, work: ShardedWork, numbers: Sequence[int]) -> None:
        """Compute these shards, each by one process; one that dies of a shard is replaced."""
        n_workers = self.workers or free_cores()
        compute, after_death = partial(computed, work), partial(computed_after_death, work)
        with progress(work, numbers) as bar, single_threaded():
            if n_workers == 1:
                sizes: Iterator[int] = map(compute, numbers)
            else:
                sizes = map_apart(compute, numbers, min(n_workers, len(numbers)), after_death)
            for size in sizes:
                bar.update(size)


class PartEngine(LocalEngine):
    """One of several parts of the shards, on this machine; others do the others.

    Args:
        part: (k, n): the k-th of n, k from 1 on.
        workers: processes; None: one a core.
    """

    def __init__(self, part: tuple[int, int], workers: int | None) -> None:
        super().__init__(workers)
        self.part = part

    def compute(self, work: ShardedWork, numbers: Sequence[int]) -> None:
        """Compute those of these shards that belong to the part."""
        k, n = self.part
        if own := [number for number in numbers if number % n == k - 1]:
            super().compute(work, own)


def computed(work: ShardedWork, number: int) -> int:
    """Compute a shard; returns its size."""
    work(number)
    return work.size(number)


def computed_after_death(work: ShardedWork, number: int) -> int:
    """Compute a shard that killed its process; returns its size."""
    work.after_death(number)
    return work.size(number)


def progress(work: ShardedWork, numbers: Sequence[int]) -> AbstractContextManager[tqdm]:
    """A progress bar over all shards, those that are not to be computed being done."""
    total, own = sum(map(work.size, range(work.n_shards))), sum(map(work.size, numbers))
    return tqdm(total=total, initial=total - own, desc=work.description, unit=work.unit)
