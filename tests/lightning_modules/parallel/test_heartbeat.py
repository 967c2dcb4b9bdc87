"""What is told of ranks from their beats alone, and what happens when the first rank itself is stopped."""

import logging
import os
import signal
import time
from pathlib import Path

import pytest
import torch.distributed as dist
from torch.distributed.distributed_c10d import _get_default_store

from lightning_modules.parallel.configuration import ParallelConfig
from lightning_modules.parallel.heartbeat import Beat, Heartbeat, Watch
from tests.ranks import fork_server, free_port


def beat(count: int, progress: int, rank: int = 0) -> Beat:
    return Beat(count, progress, "node 7", 100 + rank)


def test_a_beat_reads_back() -> None:
    assert Beat.parse(str(beat(3, 5))) == beat(3, 5)


def test_a_rank_that_falls_silent_is_late_and_no_longer_when_it_speaks() -> None:
    watch = Watch()
    for now in range(10):
        watch.observe({0: beat(now, now), 1: beat(min(now, 4), min(now, 4), 1)}, now)
    (late,) = watch.late(9, 5)
    assert str(late) == "Rank 1 (process 101 on node 7) has not been heard of for 5 s"
    assert watch.late(9, 6) == []
    watch.observe({0: beat(10, 4), 1: beat(5, 4, 1)}, 10)
    assert watch.late(10, 5) == []


def test_a_rank_that_lives_but_does_not_come_along_is_late() -> None:
    watch = Watch()
    for now in range(10):
        # All wait: those that began the next batch for the one that did not.
        watch.observe({0: beat(now, min(now, 3)), 1: beat(now, min(now, 2), 1), 2: beat(now, min(now, 3), 2)}, now)
    (late,) = watch.late(9, 5)
    assert str(late) == "Rank 1 (process 101 on node 7) has not come as far as others for 7 s"


def test_ranks_that_all_take_long_over_the_same_batch_are_not_late() -> None:
    watch = Watch()
    for now in range(1000):
        watch.observe({rank: beat(now, 1, rank) for rank in range(3)}, now)
    assert watch.late(999, 60) == []


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
    port = free_port()
    ranks = [
        fork_server().Process(target=beat_until_ended, args=(rank, port, tmp_path / str(rank)), daemon=True)
        for rank in range(2)
    ]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(timeout=120)
        process.kill()
    assert [process.exitcode for process in ranks] == [-signal.SIGKILL, 1]
    printed = (tmp_path / "1").read_text()
    assert f"Rank 0 (process {ranks[0].pid} on " in printed
    assert "the others wait. The training ends when that lasts 1.2 s (strategy.rank_lost_seconds)." in printed
    assert "the training ends. The same command goes on" in printed


@pytest.mark.parametrize(("late", "lost"), [(0, 1), (5, 4)])
def test_times_that_cannot_be_are_refused(late: float, lost: float) -> None:
    with pytest.raises(ValueError, match="rank_late_seconds is .* they must be positive"):
        ParallelConfig(rank_late_seconds=late, rank_lost_seconds=lost)
