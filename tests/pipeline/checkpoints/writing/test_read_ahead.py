import threading
from collections.abc import Callable

import pytest

from pipeline.checkpoints.writing.read_ahead import N_WORKERS, read_ahead


def test_results_come_in_the_order_of_asking() -> None:
    later = threading.Event()

    def first() -> int:
        # Whoever comes second is done before, if there is a second thread.
        return 0 if N_WORKERS == 1 or later.wait(10) else -1

    def second() -> int:
        later.set()
        return 1

    tasks: list[Callable[[], int]] = [first, second, *(lambda i=i: i for i in range(2, 20))]
    assert list(read_ahead(tasks)) == list(range(20))
    assert list(read_ahead([])) == []


def test_no_more_are_begun_than_a_few_ahead() -> None:
    begun: list[int] = []
    results = read_ahead(lambda i=i: begun.append(i) for i in range(100))
    next(results)
    assert len(begun) <= N_WORKERS + 1
    results.close()
    assert len(begun) <= N_WORKERS + 1


def test_what_a_task_raises_comes_in_its_turn() -> None:
    def broken() -> int:
        raise ValueError("a tensor")

    results = read_ahead([lambda: 1, broken, *[lambda: 2] * 50])
    assert next(results) == 1
    with pytest.raises(ValueError, match="a tensor"):
        next(results)
