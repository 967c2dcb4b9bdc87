import sys
import time

import torch.distributed as dist

from lightning_modules.parallel.waiting import WaitingTime, waits
from tests.ranks import run_on_ranks


def work_and_wait(rank: int) -> None:
    """The second rank works for a second, and the first waits for it."""
    dist.init_process_group("gloo")
    dist.barrier()
    waiting = WaitingTime()
    waiting.start()
    if rank == 1:
        time.sleep(1.0)
    dist.barrier()
    waiting.stop()
    seen = waiting.seconds
    assert seen > 0.5 if rank == 0 else seen < 0.5, seen
    dist.destroy_process_group()


def test_what_a_rank_spends_in_exchanges_is_seen_from_beside() -> None:
    run_on_ranks(work_and_wait, 2)


def test_code_of_ones_own_is_no_waiting() -> None:
    assert not waits(sys._getframe())
    assert not waits(None)
