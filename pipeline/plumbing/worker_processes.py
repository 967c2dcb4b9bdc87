"""The same function over many things, on all cores, with a progress bar."""

import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

import torch
from tqdm import tqdm

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_parallel(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int | None, description: str, unit: str
) -> Iterator[Result]:
    """Yield function(item) in order of the items, computed by `workers` processes (None: one a core).

    One worker computes in this process.
    """
    n_workers = min(workers or os.cpu_count() or 1, max(len(items), 1))
    if n_workers == 1:
        yield from tqdm(map(function, items), total=len(items), desc=description, unit=unit)
        return
    # A forked worker starts at once, where a spawned one imports torch first; only Linux forks safely. With one thread
    # each, the workers neither compete for cores nor touch the thread pools that fork left behind.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    with ProcessPoolExecutor(n_workers, context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        yield from tqdm(pool.map(function, items), total=len(items), desc=description, unit=unit)
