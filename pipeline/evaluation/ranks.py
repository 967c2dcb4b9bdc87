"""Work that several processes share, where torchrun has started them; each then has the whole result."""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

Item = TypeVar("Item")
Result = TypeVar("Result")

# One process alone may judge or write for a while; a rank that died is found by torchrun.
PATIENCE = timedelta(hours=6)


@contextmanager
def joined_ranks() -> Iterator[bool]:
    """Within, the processes that torchrun started share work; yields whether this is the one that writes results."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield _rank() == 0
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    # What is exchanged lies in the CPU's memory: scores and tokens.
    dist.init_process_group("gloo", timeout=PATIENCE)
    if _rank() > 0:
        # All would say the same.
        logging.disable(logging.INFO)
    try:
        yield _rank() == 0
        # The others stay until the results are written: torchrun would take an early end for a failure of the rest.
        dist.barrier()
    finally:
        logging.disable(logging.NOTSET)
        dist.destroy_process_group()


def own_share(items: Sequence[Item]) -> Sequence[Item]:
    """This rank's part of the items: every n-th, so that long ones, which lie together, fall to all."""
    return items[_rank() :: dist.get_world_size()] if dist.is_initialized() else items


def share(work: Callable[[Sequence[Item]], Sequence[Result]], items: Sequence[Item]) -> list[Result]:
    """`work` of all items in their order, of which each rank does its part.

    Args:
        work: a result for each of the items it is given, of which there may be none.
        items: the same ones on every rank.
    """
    parts = gather(list(work(own_share(items))))
    return [parts[number % len(parts)][number // len(parts)] for number in range(len(items))]


def gather(own: Result) -> list[Result]:
    """What each rank has, in their order."""
    if not dist.is_initialized():
        return [own]
    parts = [own] * dist.get_world_size()
    dist.all_gather_object(parts, own)
    return parts


def sum_over_ranks(tensor: Tensor) -> None:
    """Add up a tensor of the CPU's memory over all ranks, in place."""
    if dist.is_initialized():
        dist.all_reduce(tensor)


def _rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0
