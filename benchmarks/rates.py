"""What a device does at best: operations and bytes a second."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Rates:
    """What a device does at best, in the type that computes."""

    flops_per_second: float
    bytes_per_second: float


def measure_rates(device: torch.device, precision: str) -> Rates:
    """A large square product's operations a second, and a large copy's bytes."""
    on_gpu = device.type == "cuda"
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    size = 8192 if on_gpu else 1024
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    return Rates(2 * size**3 / _seconds(lambda: left @ right, device), copy_bandwidth(device))


def copy_bandwidth(device: torch.device) -> float:
    """Bytes that a large copy reads and writes a second."""
    source = torch.empty(2**28 if device.type == "cuda" else 2**25, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _seconds(lambda: target.copy_(source), device)


def _seconds(work: Callable[[], object], device: torch.device, n_repeats: int = 5) -> float:
    """The best time of a few; on a GPU all of them are waited for together."""
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        start = time.perf_counter()
        for _ in range(n_repeats):
            work()
        torch.cuda.synchronize(device)
        return (time.perf_counter() - start) / n_repeats
    best = float("inf")
    for _ in range(n_repeats):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best
