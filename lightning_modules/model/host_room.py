"""Tensors that wait in the host's memory until a backward pass asks for them."""

import weakref
from collections import defaultdict
from functools import cache

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks


class HostRoom:
    """Pinned memory, and what waits there. On a CPU nothing moves: tensors are kept as they are.

    Copies go over a stream of their own, out while the next block computes, and back one tensor ahead. Pinned memory is
    given back once its tensor is no longer needed, and taken again: it stays for the whole training, as a recorded step
    needs it to.
    """

    def __init__(self) -> None:
        self._free: defaultdict[tuple[torch.Size, torch.dtype], list[Tensor]] = defaultdict(list)
        self._last: weakref.ref[Waiting] | None = None

    def holding(self) -> saved_tensors_hooks:
        """Within, whatever is saved for a backward pass waits here."""
        return saved_tensors_hooks(self._send, fetched)

    def take(self, like: Tensor) -> Tensor:
        """Pinned memory for a tensor."""
        free = self._free[like.shape, like.dtype]
        return free.pop() if free else torch.empty(like.shape, dtype=like.dtype, device="cpu", pin_memory=like.is_cuda)

    def give_back(self, place: Tensor) -> None:
        """Let others have what `take` has given."""
        self._free[place.shape, place.dtype].append(place)

    def _send(self, tensor: Tensor) -> "Tensor | Waiting":
        if not moves(tensor):
            return tensor
        before = None if self._last is None else self._last()
        waiting = Waiting(self, tensor, before)
        if before is not None:
            before.leave()
        self._last = weakref.ref(waiting)
        return waiting


class Waiting:
    """A tensor in a `HostRoom`; what was sent last is still where it was as well.

    Args:
        room: where it waits.
        tensor: what is sent.
        before: what was sent before, and will be asked for next.
    """

    def __init__(self, room: HostRoom, tensor: Tensor, before: "Waiting | None") -> None:
        self._room = room
        self._before = None if before is None else weakref.ref(before)
        self._place = room.take(tensor)
        self._there: Tensor | None = tensor
        self._copied = begin_copy(self._place, tensor, tensor.device)
        self._device = tensor.device

    def __del__(self) -> None:
        self._room.give_back(self._place)

    def leave(self) -> None:
        """Give up the tensor where it came from. Its memory is free for what the device computes after the copy."""
        end_copy(self._copied, self._device)
        self._there = None

    def begin_return(self) -> None:
        """Copy it back, beside what the device computes."""
        if self._there is None:
            self._there = torch.empty(self._place.shape, dtype=self._place.dtype, device=self._device)
            self._copied = begin_copy(self._there, self._place, self._device)

    def returned(self) -> Tensor:
        """The tensor, on its device; the one before it sets out."""
        self.begin_return()
        assert self._there is not None
        end_copy(self._copied, self._device)
        before = None if self._before is None else self._before()
        if before is not None:
            before.begin_return()
        return self._there


def fetched(saved: Tensor | Waiting) -> Tensor:
    """What was sent, or stayed."""
    return saved.returned() if isinstance(saved, Waiting) else saved


def moves(tensor: Tensor) -> bool:
    """Whether it is on a device whose memory is to be spared."""
    return tensor.is_cuda


def begin_copy(target: Tensor, source: Tensor, device: torch.device) -> torch.cuda.Event:
    """Copy to or from `device`, behind what it has been given so far and beside what it is given next."""
    copies = _copies(device)
    copies.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(copies):
        target.copy_(source, non_blocking=True)
    return copies.record_event()


def end_copy(copied: torch.cuda.Event, device: torch.device) -> None:
    """Have what the device is given next wait for a copy."""
    torch.cuda.current_stream(device).wait_event(copied)


@cache
def _copies(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)
