"""The same function over many things, on all cores, with a progress bar."""

import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

import torch
from tqdm import tqdm

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_parallel(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int | None,
    description: str,
    unit: str,
    on_death: Callable[[Item], Result] | None = None,
) -> Iterator[Result]:
    """Yield function(item) in order of the items, computed by `workers` processes (None: one a core).

    One worker computes in this process.

    Args:
        function: what is done to each item.
        items: what it is done to.
        workers: how many processes.
        description: stands before the progress bar.
        unit: of the progress bar.
        on_death: what stands for the result of an item that kills its process, as a decoder may that crashes on a
            hostile file; without it a BrokenProcessPool is raised.
    """
    # Ranks on one machine share its cores.
    n_cores = max(1, (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    n_workers = min(workers or n_cores, max(len(items), 1))
    results = map(function, items) if n_workers == 1 else _map_processes(function, items, n_workers, on_death)
    yield from tqdm(results, total=len(items), desc=description, unit=unit)


def _map_processes(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    n_workers: int,
    on_death: Callable[[Item], Result] | None,
) -> Iterator[Result]:
    position = 0
    while position < len(items):
        try:
            for result in _map_pool(function, items[position:], n_workers):
                yield result
                position += 1
        except BrokenProcessPool:
            if on_death is None:
                raise
            # One of those that were under way: each of the next ones in a process of its own.
            for item in items[position : position + n_workers]:
                try:
                    yield from _map_pool(function, [item], 1)
                except BrokenProcessPool:
                    yield on_death(item)
                position += 1


def _map_pool(function: Callable[[Item], Result], items: Sequence[Item], n_workers: int) -> Iterator[Result]:
    # A forked worker starts at once, where a spawned one imports torch first; only Linux forks safely. With one thread
    # each, the workers neither compete for cores nor touch the thread pools that fork left behind.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    with ProcessPoolExecutor(n_workers, context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        yield from pool.map(function, items)
