"""The same function over many things, on all cores, with a progress bar."""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import joblib
from tqdm import tqdm

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_parallel(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int | None, description: str, unit: str
) -> Iterator[Result]:
    """Yield function(item) in order of the items, computed by `workers` processes (None: one a core).

    Only a few results wait in memory at a time. One worker computes in this process.
    """
    n_workers = min(workers or os.cpu_count() or 1, max(len(items), 1))
    results = joblib.Parallel(n_jobs=n_workers, return_as="generator")(joblib.delayed(function)(item) for item in items)
    yield from tqdm(results, total=len(items), desc=description, unit=unit)
