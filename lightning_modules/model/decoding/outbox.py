"""What steps have said, on its way from the device to the host, which fetches it later."""

from collections import deque
from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

Addressee = TypeVar("Addressee")


class _Posted(NamedTuple):
    """A copy on its way; it has arrived once the event has, or at once where there is none."""

    values: Tensor
    addressees: list
    arrival: torch.cuda.Event | None


class Outbox(Generic[Addressee]):
    """Small tensors that the device writes step by step, read in their order without stopping the device.

    On a GPU each is copied into page-locked memory behind the step that wrote it, and an event tells when it is there.
    """

    def __init__(self) -> None:
        self._posted: deque[_Posted] = deque()
        self._buffers: list[Tensor] = []

    def __len__(self) -> int:
        return len(self._posted)

    def post(self, values: Tensor, addressees: Sequence[Addressee]) -> None:
        """Send `values` [B, N], which the next step overwrites, row b of it to the b-th addressee."""
        if not values.is_cuda:
            self._posted.append(_Posted(values.clone(), list(addressees), None))
            return
        buffer = self._buffer(values)
        buffer.copy_(values, non_blocking=True)
        arrival = torch.cuda.Event()
        arrival.record()
        self._posted.append(_Posted(buffer, list(addressees), arrival))

    def has_arrived(self) -> bool:
        """Whether `take` returns without waiting."""
        return bool(self._posted) and (self._posted[0].arrival is None or self._posted[0].arrival.query())

    def take(self) -> list[tuple[Addressee, list[int]]]:
        """The oldest values with their addressees, waited for."""
        values, addressees, arrival = self._posted.popleft()
        if arrival is not None:
            arrival.synchronize()
            self._buffers.append(values)
        return list(zip(addressees, values.tolist(), strict=True))

    def _buffer(self, values: Tensor) -> Tensor:
        """Page-locked memory of the shape of `values`, used again where there is some."""
        for index, buffer in enumerate(self._buffers):
            if buffer.shape == values.shape:
                return self._buffers.pop(index)
        return torch.empty_like(values, device="cpu", pin_memory=True)
