"""A step of decoding as one CUDA graph.

A step launches hundreds of kernels of a few microseconds each, faster than a host can. Recorded once, all start by one
launch, and read and write the same memory as before.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch.cuda.graphs import _POOL_HANDLE

# How often a step runs kernel by kernel before it is recorded: compilers and libraries choose then what to launch.
N_WARM_UPS = 2


class RecordedStep:
    """Runs `compute`, from its third time on as a recording.

    Args:
        compute: reads and writes tensors that stay where they are; neither waits for the GPU, nor depends on anything
            of the host's that changes.
        pool: memory for what is computed in between; recordings that never run at once may share one.
    """

    def __init__(self, compute: Callable[[], None], pool: "_POOL_HANDLE") -> None:
        self._compute = compute
        self._pool = pool
        self._n_runs = 0
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> None:
        """Launch the next step."""
        self._n_runs += 1
        if self._n_runs <= N_WARM_UPS:
            self._compute()
            return
        if self._graph is None:
            self._graph = torch.cuda.CUDAGraph()
            # Other threads go on as they like.
            with torch.cuda.graph(self._graph, pool=self._pool, capture_error_mode="thread_local"):
                self._compute()
        self._graph.replay()


class RecordedSteps:
    """Recordings of a step over the first rows, one for each number of rows that was met.

    Args:
        compute_first: makes, for a number of rows, what `RecordedStep` takes.
        n_rows: how many rows there are.
    """

    def __init__(self, compute_first: Callable[[int], Callable[[], None]], n_rows: int) -> None:
        self._compute_first = compute_first
        self._n_rows = n_rows
        self._steps: dict[int, RecordedStep] = {}
        self._pool = torch.cuda.graph_pool_handle()

    def run(self, n_rows: int) -> int:
        """Launch a step over at least `n_rows` rows; returns how many.

        A recording of more rows serves fewer, too: few are made, of powers of two.
        """
        fitting = [size for size in self._steps if size >= n_rows]
        size = min(fitting) if fitting else min(1 << (n_rows - 1).bit_length(), self._n_rows)
        if size not in self._steps:
            self._steps[size] = RecordedStep(self._compute_first(size), self._pool)
        self._steps[size]()
        return size
