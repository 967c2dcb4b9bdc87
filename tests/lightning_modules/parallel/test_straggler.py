from lightning_modules.parallel.straggler import Stragglers, slowest


def test_the_slowest_is_held_against_the_median() -> None:
    assert slowest([1.0, 1.2, 3.6, 0.9], step=4.0)[:2] == (2, 3.6)
    # Of two ranks one is the slow one, and the other the measure.
    assert slowest([1.0, 2.0], step=2.0)[:2] == (1, 2.0)


def test_a_rank_that_is_slow_again_and_again_is_named_once() -> None:
    stragglers = Stragglers()
    steps = [[1.0, 1.0, 2.0], [1.0, 1.0, 2.0], [1.0, 1.0, 2.0], [1.0, 1.0, 1.0], [1.0, 1.0, 2.0], [1.0, 1.0, 2.0]]
    named = [stragglers.observe(work, step=2.1) for work in steps]
    assert [found and found.rank for found in named] == [None, 2, None, None, None, 2]


def test_one_pause_of_each_names_nobody() -> None:
    stragglers = Stragglers()
    assert [stragglers.observe([1.0 + (i == j) for j in range(3)], step=2.1) for i in range(3)] == [None] * 3


def test_a_rank_that_nobody_waits_for_is_not_slow() -> None:
    """Its host works longer than others, and all hosts wait for their GPUs."""
    stragglers = Stragglers()
    assert [stragglers.observe([0.1, 0.3], step=2.0) for _ in range(3)] == [None] * 3
