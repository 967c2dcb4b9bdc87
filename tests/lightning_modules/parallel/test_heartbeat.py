"""What is told of ranks from their beats alone, and what happens when the first rank itself is stopped."""

import logging
import os
import re
import signal
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import _get_default_store

from lightning_modules.parallel.collectives import Exchange, begin_recording, who_is_waited_for
from lightning_modules.parallel.configuration import ParallelConfig
from lightning_modules.parallel.heartbeat import Beat, Heartbeat, Watch
from tests.ranks import fork_server, free_port


def beat(count: int, progress: int, rank: int = 0) -> Beat:
    return Beat(count, progress, 2 * progress, "node 7", 100 + rank)


def test_a_beat_reads_back() -> None:
    assert Beat.parse(str(beat(3, 5))) == beat(3, 5)


def test_a_rank_that_falls_silent_is_late_and_no_longer_when_it_speaks() -> None:
    watch = Watch()
    for now in range(10):
        watch.observe({0: beat(now, now), 1: beat(min(now, 4), min(now, 4), 1)}, now)
    (late,) = watch.late(9, 5)
    assert str(late) == "Rank 1 (process 101 on node 7, step 8) has not been heard of for 5 s"
    assert watch.late(9, 6) == []
    watch.observe({0: beat(10, 4), 1: beat(5, 4, 1)}, 10)
    assert watch.late(10, 5) == []


def test_a_rank_that_lives_but_does_not_come_along_is_late() -> None:
    watch = Watch()
    for now in range(10):
        # All wait: those that began the next batch for the one that did not.
        watch.observe({0: beat(now, min(now, 3)), 1: beat(now, min(now, 2), 1), 2: beat(now, min(now, 3), 2)}, now)
    (late,) = watch.late(9, 5)
    assert str(late) == "Rank 1 (process 101 on node 7, step 4) has not come as far as others for 7 s"


def test_ranks_that_all_take_long_over_the_same_batch_are_not_late() -> None:
    watch = Watch()
    for now in range(1000):
        watch.observe({rank: beat(now, 1, rank) for rank in range(3)}, now)
    assert watch.late(999, 60) == []


def test_a_rank_that_others_wait_for_in_an_exchange_is_late_where_all_stand_still() -> None:
    watch = Watch()
    for now in range(10):
        watch.observe({rank: beat(now, 3, rank) for rank in range(3)}, now)
    reduced, gathered = Exchange(7, "gloo:all_reduce", "[[4]]"), Exchange(8, "gloo:all_gather", "[[2]]")
    watch.observe_places({0: {"dp": gathered}, 1: {"dp": reduced}, 2: {"dp": gathered}})
    (late,) = watch.late(9, 5)
    assert str(late) == (
        "Rank 1 (process 101 on node 7, step 6) is waited for for 9 s (ranks 0, 2 wait in gloo:all_gather 8 of [[2]] "
        "of dp, where rank 1 has come to gloo:all_reduce 7 of [[4]])"
    )
    assert watch.late(9, 10) == []


def test_who_is_waited_for_waits_for_nobody() -> None:
    def place(**numbers: int) -> dict[str, Exchange]:
        return {group: Exchange(number, "gloo:all_reduce", "[[4]]") for group, number in numbers.items()}

    assert who_is_waited_for({}) is None
    assert who_is_waited_for({0: place(a=3), 1: place(a=3), 2: place(b=1)}) is None
    # 0 waits for 1 in a, which waits for 2 in b.
    waited = who_is_waited_for({0: place(a=4), 1: place(a=3, b=2), 2: place(b=1)})
    assert waited is not None
    assert waited.rank == 2
    other = {"a": Exchange(3, "gloo:all_gather", "[[4]]")}
    waited = who_is_waited_for({0: place(a=3), 1: place(a=3), 2: other})
    assert waited is not None
    assert "where rank 0 is in gloo:all_reduce 3 of [[4]]" in waited.sentence


def exchange_until_ended(rank: int, port: int, printed: Path, fault: str) -> None:
    """Be one of two ranks, of which the second hangs before an exchange, or leaves one out."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    logging.basicConfig(filename=printed)
    begin_recording()
    dist.init_process_group("gloo")
    group = dist.new_group([0, 1], group_desc="dp_shard")
    heartbeat = Heartbeat(_get_default_store(), rank, 2, late_seconds=0.8, lost_seconds=2.4)
    heartbeat.tell()
    dist.barrier()
    heartbeat.start()
    heartbeat.advance(step=41)
    dist.all_reduce(torch.ones(4), group=group)
    if rank == 1 and fault == "hangs":
        time.sleep(300)
    if rank == 0 or fault == "hangs":
        dist.all_gather([torch.ones(6), torch.ones(6)], torch.ones(6), group=group)
    dist.barrier()
    time.sleep(300)


def run_two_until_ended(rank_of_two: Callable[..., None], folder: Path, *arguments: Any) -> list[BaseProcess]:
    """Let two ranks end each other; what rank r logs is in `folder`/r."""
    port = free_port()
    ranks = [
        fork_server().Process(target=rank_of_two, args=(rank, port, folder / str(rank), *arguments), daemon=True)
        for rank in range(2)
    ]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(timeout=120)
        process.kill()
    return ranks


@pytest.mark.parametrize("fault", ["hangs", "leaves one out"])
def test_a_rank_in_another_exchange_is_named_with_step_and_exchange_and_ended(tmp_path: Path, fault: str) -> None:
    ranks = run_two_until_ended(exchange_until_ended, tmp_path, fault)
    printed = "".join((tmp_path / str(rank)).read_text() for rank in range(2))
    # One is killed, and the other leaves by itself. Who left an exchange out waits for the other as well.
    assert sorted(process.exitcode or 0 for process in ranks) == [-signal.SIGKILL, 1]
    assert fault != "hangs" or f"Rank 1 (process {ranks[1].pid} on " in printed
    assert "step 41) is waited for for" in printed
    assert re.search(r"rank 0 waits in gloo:all_gather 2 of \[\[6\]\] of dp_shard", printed), printed
    assert "the training ends. The same command goes on" in printed


def beat_until_ended(rank: int, port: int, printed: Path) -> None:
    """Be one of two ranks, of which the first stops itself."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    logging.basicConfig(filename=printed)
    dist.init_process_group("gloo")
    heartbeat = Heartbeat(_get_default_store(), rank, 2, late_seconds=0.4, lost_seconds=1.2)
    heartbeat.tell()
    dist.barrier()
    heartbeat.start()
    dist.barrier()
    if rank == 0:
        os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(300)


def test_a_first_rank_that_is_stopped_is_named_and_ended_by_the_others(tmp_path: Path) -> None:
    ranks = run_two_until_ended(beat_until_ended, tmp_path)
    assert [process.exitcode for process in ranks] == [-signal.SIGKILL, 1]
    printed = (tmp_path / "1").read_text()
    assert f"Rank 0 (process {ranks[0].pid} on " in printed
    assert "the others wait. The training ends when that lasts 1.2 s (strategy.rank_lost_seconds)." in printed
    assert "the training ends. The same command goes on" in printed


@pytest.mark.parametrize(("late", "lost"), [(0, 1), (5, 4)])
def test_times_that_cannot_be_are_refused(late: float, lost: float) -> None:
    with pytest.raises(ValueError, match="rank_late_seconds is .* they must be positive"):
        ParallelConfig(rank_late_seconds=late, rank_lost_seconds=lost)
