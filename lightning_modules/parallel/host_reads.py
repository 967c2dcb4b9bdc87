"""Numbers that the host has to know, read without stopping the GPU's other work, also within compiled code."""

from functools import cache

import torch
from torch import Tensor


@torch.library.custom_op("melisma::copy_to_host", mutates_args=())
def copy_to_host(numbers: Tensor) -> Tensor:
    """Begin to copy `numbers` to the host; `arrived_on_host` has them."""
    if not numbers.is_cuda:
        return numbers.clone()
    stream = _copies(numbers.device)
    stream.wait_stream(torch.cuda.current_stream(numbers.device))
    with torch.cuda.stream(stream):
        on_host = torch.empty_like(numbers, device="cpu", pin_memory=True).copy_(numbers, non_blocking=True)
    numbers.record_stream(stream)
    return on_host


@copy_to_host.register_fake
def _(numbers: Tensor) -> Tensor:
    return torch.empty_like(numbers, device="cpu")


@torch.library.custom_op("melisma::arrived_on_host", mutates_args=())
def arrived_on_host(on_host: Tensor) -> Tensor:
    """Wait until a copy has ended, but for nothing that was queued after it began."""
    if on_host.is_pinned():
        _copies(torch.device("cuda", torch.cuda.current_device())).synchronize()
    return on_host.clone()


@arrived_on_host.register_fake
def _(on_host: Tensor) -> Tensor:
    return torch.empty_like(on_host)


@cache
def _copies(device: torch.device) -> torch.cuda.Stream:
    """A stream of their own: waiting for it is not waiting for what computes."""
    return torch.cuda.Stream(device)
