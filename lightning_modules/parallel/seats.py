"""Which ranks share a machine, and whether their GPUs reach each other."""

import socket
from typing import NamedTuple, TypeVar

import torch
import torch.distributed as dist

Told = TypeVar("Told")


class Seat(NamedTuple):
    """Where a rank sits.

    Attributes:
        host: the machine's name.
        device: the number of its GPU there; -1: none that matters.
    """

    host: str
    device: int


def own_seat(matters: bool = True) -> Seat:
    """This rank's; of a GPU that does not matter it tells nothing."""
    return Seat(socket.gethostname(), torch.cuda.current_device() if matters else -1)


def told_by_all(mine: Told, group: dist.ProcessGroup) -> list[Told]:
    """What every rank says, in their order."""
    told = [mine] * group.size()
    dist.all_gather_object(told, mine, group)
    return told


def unreachable(seats: list[Seat], here: Seat) -> str | None:
    """Why this rank's GPU cannot write to those of others on its machine; None: it can."""
    for rank, seat in enumerate(seats):
        if seat is here or seat.host != here.host or -1 in (seat.device, here.device):
            continue
        if seat.device >= torch.cuda.device_count() or seat.device == here.device:
            return f"the GPU of rank {rank} is not visible beside this rank's own"
        if not torch.cuda.can_device_access_peer(here.device, seat.device):
            return (
                f"GPUs {here.device} and {seat.device} of {here.host} do not reach each other (NVLink or peer access)"
            )
    return None
