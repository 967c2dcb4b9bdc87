import os
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import psutil
import pytest
import torch
from threadpoolctl import threadpool_info

from pipeline.plumbing.worker_processes import map_parallel, map_parts


def square(number: int) -> int:
    return number * number


def process_id(_: int) -> int:
    return os.getpid()


def refuse_three(number: int) -> int:
    if number == 3:
        raise ValueError("three of shard_00003.bin")
    return number


def test_one_worker_computes_here_in_order_and_no_earlier_than_asked(capsys: pytest.CaptureFixture[str]) -> None:
    computed: list[int] = []

    def record(number: int) -> int:
        computed.append(number)
        return -number

    results = map_parallel(record, range(5), 1, "encoding", "shard")
    assert computed == []
    assert next(results) == 0
    assert len(computed) < 5
    assert list(results) == [-1, -2, -3, -4]
    assert computed == [0, 1, 2, 3, 4]
    progress = capsys.readouterr().err
    assert "encoding: 100%" in progress
    assert "5/5" in progress
    assert "shard" in progress


def test_two_workers_are_processes_and_keep_the_order() -> None:
    """One start of processes for all that takes some."""
    assert list(map_parallel(square, range(20), 2, "squaring", "number")) == [n * n for n in range(20)]
    assert os.getpid() not in set(map_parallel(process_id, range(4), 2, "asking", "process"))
    with pytest.raises(ValueError, match="three of shard_00003.bin"):
        list(map_parallel(refuse_three, range(8), 2, "refusing", "number"))


def die_on_three(number: int) -> int:
    if number in (3, 11):
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_an_item_that_kills_its_process_is_named_and_the_others_are_done() -> None:
    """As a decoder's crash on a hostile file would."""
    results = list(map_parallel(die_on_three, range(14), 2, "decoding", "file", on_death=lambda number: -number))
    assert results == [-number if number in (3, 11) else number for number in range(14)]
    with pytest.raises(BrokenProcessPool):
        list(map_parallel(die_on_three, range(14), 2, "decoding", "file"))


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    script = (
        "import os, pathlib, sys, time; from pipeline.plumbing.worker_processes import map_parallel\n"
        "def work(n): pathlib.Path(sys.argv[1], str(os.getpid())).touch(); time.sleep(0.05)\n"
        "list(map_parallel(work, range(10000), 2, 'sleeping', 'nap'))"
    )
    parent = subprocess.Popen([sys.executable, "-c", script, tmp_path], stderr=subprocess.DEVNULL)
    while len(list(tmp_path.iterdir())) < 2:
        assert parent.poll() is None
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    workers = [int(path.name) for path in tmp_path.iterdir()]
    _, alive = psutil.wait_procs([psutil.Process(pid) for pid in workers if psutil.pid_exists(pid)], timeout=20)
    assert alive == []


def test_a_single_item_needs_no_other_process() -> None:
    assert list(map_parallel(process_id, [0], 4, "asking", "process")) == [os.getpid()]


def test_tensors_travel_by_value_and_not_in_shared_memory() -> None:
    def double(tensor: torch.Tensor) -> tuple[torch.Tensor, bool]:
        return 2 * tensor, tensor.is_shared()

    results = list(map_parallel(double, [torch.ones(3), torch.zeros(2)], 2, "decoding", "utterance"))
    assert [doubled.tolist() for doubled, _ in results] == [[2.0] * 3, [0.0] * 2]
    assert not any(doubled.is_shared() or was_shared for doubled, was_shared in results)


def test_nothing_to_do() -> None:
    assert list(map_parallel(square, [], None, "squaring", "number")) == []


def test_by_default_one_worker_a_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.plumbing.worker_processes.os.cpu_count", lambda: 1)
    assert list(map_parallel(process_id, range(3), None, "asking", "process")) == [os.getpid()] * 3


def test_an_error_here_stops_the_rest() -> None:
    done: list[int] = []

    def work(number: int) -> None:
        refuse_three(number)
        done.append(number)

    with pytest.raises(ValueError, match="three"):
        list(map_parallel(work, range(8), 1, "working", "number"))
    assert done == [0, 1, 2]


def test_parts_come_back_in_order_from_workers_of_one_thread() -> None:
    def describe(part, shows_progress: bool):
        return torch.tensor(part), shows_progress, max(pool["num_threads"] for pool in threadpool_info())

    (first, *told), (second, *told_second) = map_parts(describe, range(5), 2)
    assert (first.tolist(), second.tolist()) == ([0, 2, 4], [1, 3])
    assert (told, told_second) == ([True, 1], [False, 1])
    ((whole, shows_progress, _),) = map_parts(describe, range(5), 1)
    assert (whole.tolist(), shows_progress) == ([0, 1, 2, 3, 4], True)


@pytest.mark.parametrize("n_parts", [1, 2])
def test_of_several_ranks_the_first_alone_shows_progress(monkeypatch: pytest.MonkeyPatch, n_parts: int) -> None:
    monkeypatch.setenv("RANK", "1")
    assert map_parts(lambda _, shows_progress: shows_progress, range(5), n_parts) == [False] * n_parts
