"""Tensors in equal parts, one on each rank, that GPUs of one machine copy from each other.

Their copy engines do, and take no multiprocessors from what computes meanwhile, as an exchange by NCCL does. Ranks have
to meet before anyone copies what others may just have written, and before they write it anew.
"""

import logging
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import _symmetric_memory as symmetric

from lightning_modules.parallel.seats import own_seat, told_by_all, unreachable

log = logging.getLogger(__name__)


def can_copy(group: dist.ProcessGroup, device: torch.device) -> bool:
    """Whether all ranks of a group sit on one machine, and its GPUs open their memory to each other.

    All ranks call together, and hear the same.
    """
    if device.type != "cuda" or dist.get_backend(group) != "nccl":
        return False
    # Memory is opened only where all GPUs reach each other: those that try wait for all.
    for lacking in (_too_far, partial(_closed, device)):
        reasons = [reason for reason in told_by_all(lacking(group), group) if reason is not None]
        if reasons:
            if group.rank() == 0:
                log.info("GPUs do not copy weights from each other, but exchange them: %s.", reasons[0])
            return False
    return True


def _too_far(group: dist.ProcessGroup) -> str | None:
    """Why this rank's GPU cannot reach all others; None: it can."""
    seats = told_by_all(own_seat(), group)
    if len({seat.host for seat in seats}) > 1:
        return "they are those of several machines"
    return unreachable(seats, seats[group.rank()])


def _closed(device: torch.device, group: dist.ProcessGroup) -> str | None:
    """Why GPUs do not open their memory; None: they do."""
    try:
        PeerParts(torch.zeros(1, device=device), group)
    except RuntimeError as error:
        return str(error).splitlines()[0]
    return None


class PeerParts:
    """A tensor's parts, of which every rank of a group can read all. All ranks build it together.

    Args:
        part: this rank's; all are of one shape.
        group: the ranks.

    Attributes:
        own: memory that holds this rank's part, and takes the place of `part`.
    """

    def __init__(self, part: Tensor, group: dist.ProcessGroup) -> None:
        self.own = symmetric.empty(part.shape, dtype=part.dtype, device=part.device)
        self.own.copy_(part)
        handle = symmetric.rendezvous(self.own, group)
        # In an order that no two ranks begin with the same one.
        ranks = [(handle.rank + step) % handle.world_size for step in range(handle.world_size)]
        self._parts = {rank: handle.get_buffer(rank, part.shape, part.dtype) for rank in ranks}

    def copy_to(self, whole: Tensor) -> None:
        """Copy all of them, one behind the other."""
        places = whole.chunk(len(self._parts))
        for rank, part in self._parts.items():
            places[rank].copy_(part, non_blocking=True)


class Meeting:
    """A place in the current stream's order that no rank of a group passes before all have come there."""

    def __init__(self, group: dist.ProcessGroup, device: torch.device) -> None:
        self._group = group
        self._token = torch.zeros(1, device=device)

    def wait(self) -> None:
        """Have what follows wait for all ranks."""
        dist.all_reduce(self._token, group=self._group)
