"""Shards as tasks of a Ray cluster, whose nodes see the cache and the corpus under the same paths."""

import logging
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

from pipeline.plumbing.worker_processes import AHEAD, one_thread
from pipeline.preparation.configuration import RayConfig
from pipeline.preparation.engines.engine import Engine, computed, computed_after_death, progress
from pipeline.preparation.sharded import ShardedWork

# Seconds after which the cluster is asked again how many tasks it takes at a time.
PATIENCE = 10.0
# Seconds within which the head of a cluster takes a connection.
ANSWER_SECONDS = 10.0


class RayEngine(Engine):
    """Tasks of a Ray cluster: one whose worker or node dies is tried again elsewhere.

    Few tasks are handed in at a time, so that the driver's memory does not grow with the corpus.
    """

    def __init__(self, config: RayConfig) -> None:
        self.config = config
        # Told before anything is done.
        import_ray()

    def started(self) -> AbstractContextManager[None]:
        """Be connected to the cluster."""
        return connected(import_ray(), self.config.address)

    def compute(self, work: ShardedWork, numbers: Sequence[int]) -> None:
        """Compute these shards, in whatever order the cluster has them done."""
        with progress(work, numbers) as bar:
            for size in self._results(import_ray(), work, iter(numbers)):
                bar.update(size)

    def _results(self, ray: ModuleType, work: ShardedWork, numbers: Iterator[int]) -> Iterator[int]:
        """Yield the size of each shard that is computed."""
        options = {"num_cpus": self.config.cpus, "num_gpus": self.config.gpus, "max_retries": self.config.retries}
        first, after_death = (ray.remote(**options)(function) for function in (_compute, _compute_after_death))
        folder = str(Path.cwd())
        under_way: dict[Any, int] = {}
        deadly: set[int] = set()
        while True:
            for number in islice(numbers, max(0, self._places(ray) - len(under_way))):
                under_way[first.remote(work, number, folder)] = number
            if not under_way:
                return
            done, _ = ray.wait(list(under_way), timeout=PATIENCE)
            for task in done:
                number = under_way.pop(task)
                try:
                    yield ray.get(task)
                except ray.exceptions.RayTaskError as error:
                    raise error.cause from error
                except ray.exceptions.RayError:
                    # Its worker died, as often as it was tried.
                    if number in deadly:
                        ShardedWork.after_death(work, number)
                    deadly.add(number)
                    under_way[after_death.remote(work, number, folder)] = number

    def _places(self, ray: ModuleType) -> int:
        """How many tasks to have under way: some for each that can run, on nodes that came meanwhile too."""
        return max(1, int(AHEAD * ray.cluster_resources().get("CPU", 1) / self.config.cpus))


def import_ray() -> ModuleType:
    """Ray, which is not installed with the rest.

    Raises:
        ModuleNotFoundError: with the command that installs it.
    """
    # It would tell its makers of every start.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "preparation=ray needs Ray, which is not installed; install it: make cluster"
        ) from error
    return ray


@contextmanager
def connected(ray: ModuleType, address: str | None) -> Iterator[None]:
    """Be connected to a cluster, and leave it at the end; one that this process is connected to already stays.

    Raises:
        ValueError: none answers at the address.
    """
    if ray.is_initialized():
        yield
        return
    try:
        require_answer(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"preparation.address={address}: no Ray cluster answers ({' '.join(str(error).split())[:200]}); start one "
            "with `ray start --head`, or leave the address out. A cluster that asks for a token, as `ray start` said, "
            "needs RAY_AUTH_MODE=token here too."
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def require_answer(address: str | None) -> None:
    """Raise an OSError where nothing listens at HOST:PORT; Ray itself would try for minutes."""
    host, colon, port = (address or "").partition(":")
    if colon and port.isdecimal():
        socket.create_connection((host, int(port)), ANSWER_SECONDS).close()


def _compute(work: ShardedWork, number: int, folder: str) -> int:
    _settle(folder)
    return computed(work, number)


def _compute_after_death(work: ShardedWork, number: int, folder: str) -> int:
    _settle(folder)
    return computed_after_death(work, number)


def _settle(folder: str) -> None:
    """Be where the driver is, so that relative paths lead to the same places.

    Raises:
        FileNotFoundError: this node does not see the folder.
    """
    try:
        os.chdir(folder)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"The node {socket.gethostname()} has no folder {folder}; the nodes of the cluster need a file system that "
            "all of them see under the same path."
        ) from None
    one_thread()
