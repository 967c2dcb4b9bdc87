"""Work of several threads, in the order in which it was asked for."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")

# Each has a piece of a tensor in memory; a disk is faster than four.
N_WORKERS = min(4, os.cpu_count() or 1)


def read_ahead(tasks: Iterable[Callable[[], T]]) -> Iterator[T]:
    """Call every task, a few ahead in threads of their own, and yield what they return, in their order.

    Reading, rounding and checking release Python's lock, so that whoever takes the results can write meanwhile. What a
    task raises is raised here in its turn, and no task is begun after it.
    """
    with ThreadPoolExecutor(N_WORKERS, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        pending: deque[Future[T]] = deque()
        try:
            for task in tasks:
                pending.append(pool.submit(task))
                if len(pending) > N_WORKERS:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
