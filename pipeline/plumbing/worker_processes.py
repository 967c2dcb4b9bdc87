"""The same function over many things, on all cores, with a progress bar."""

import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import Any, TypeVar

import torch
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from pipeline.plumbing.rank import rank_of_this_process

Item = TypeVar("Item")
Result = TypeVar("Result")

# Items that are under way or wait for a worker, for each worker: whatever there is to do, few are in memory.
AHEAD = 4

# What a worker does to every item: set in workers alone.
_function: Callable[[Any], Any]


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
    results = map_processes(function, items, workers, on_death)
    yield from tqdm(results, total=len(items), desc=description, unit=unit)


def map_processes(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int | None,
    on_death: Callable[[Item], Result] | None = None,
) -> Iterator[Result]:
    """The same as `map_parallel`, for those who show their progress themselves."""
    n_workers = min(workers or free_cores(), max(len(items), 1))
    if n_workers == 1:
        return map(function, items)
    return map_apart(function, items, n_workers, on_death)


def in_process_of_its_own(function: Callable[[Item], Result], item: Item) -> Result:
    """function(item), computed by a process that may die of it.

    Raises:
        concurrent.futures.process.BrokenProcessPool: it did.
    """
    (result,) = _map_pool(function, [item], 1)
    return result


def one_thread() -> None:
    """Keep this process to one thread: workers neither compete for cores nor differ in their last bits."""
    torch.set_num_threads(1)
    threadpool_limits(1)


def map_parts(function: Callable[[Sequence[Item], bool], Result], items: Sequence[Item], n_parts: int) -> list[Result]:
    """The results of `function` for parts of the items, each part in a process of its own: part k has every n-th, from
    item k on.

    Args:
        function: of a part, and whether it may show its progress: one part of the first rank does, for all.
        items: no fewer than parts.
        n_parts: how many; one is computed in this process.
    """
    is_first = rank_of_this_process() == 0
    if n_parts == 1:
        return [function(items, is_first)]
    parts = [(items[number::n_parts], is_first and number == 0) for number in range(n_parts)]
    return list(_map_pool(partial(_apply, function), parts, n_parts))


def free_cores() -> int:
    """Cores for this process: ranks on one machine share them."""
    return max(1, (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


class _ByValue:
    """Arrives in another process as the value itself, of which the bytes are sent.

    Tensors would otherwise lie in shared memory, of which a container may have little, and be handed on by a thread
    that is not there in a process that was forked by others than `multiprocessing`.
    """

    def __init__(self, value: object) -> None:
        self.value = value

    def __reduce__(self) -> tuple[Callable[[bytes], Any], tuple[bytes]]:
        return pickle.loads, (pickle.dumps(self.value),)


def _apply(function: Callable[[Sequence[Item], bool], Result], part: tuple[Sequence[Item], bool]) -> Result:
    return function(*part)


def map_apart(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    n_workers: int,
    on_death: Callable[[Item], Result] | None,
) -> Iterator[Result]:
    """The same as `map_processes`, in processes other than this one, be it one."""
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
                    yield in_process_of_its_own(function, item)
                except BrokenProcessPool:
                    yield on_death(item)
                position += 1


def _map_pool(function: Callable[[Item], Result], items: Sequence[Item], n_workers: int) -> Iterator[Result]:
    # A forked worker starts at once, where a spawned one imports torch first; only Linux forks safely.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    with ProcessPoolExecutor(n_workers, context, initializer=_begin, initargs=(function,)) as pool:
        under_way: deque[Future[Any]] = deque()
        try:
            for item in items:
                under_way.append(pool.submit(_work, _ByValue(item)))
                if len(under_way) >= AHEAD * n_workers:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        finally:
            for future in under_way:
                future.cancel()


def _begin(function: Callable[[Any], Any]) -> None:
    """Prepare a worker, to which the function is handed once, and not with every item."""
    global _function  # noqa: PLW0603
    _function = function
    # Not as the parent would: a pool that breaks ends its workers by it.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # Nor touch the thread pools that fork left behind.
    one_thread()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End a worker whose parent was killed: it would wait for ever for the next item."""
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)


def _work(item: Any) -> Any:
    return _ByValue(_function(item))
