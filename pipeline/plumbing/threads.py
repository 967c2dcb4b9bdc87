"""How many threads a process computes with."""

from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import threadpool_limits

from lightning_modules.model.threads import one_thread


@contextmanager
def single_threaded() -> Iterator[None]:
    """Run on one thread, where sums have one order: what is computed then repeats bit for bit."""
    with one_thread(), threadpool_limits(1):
        yield
