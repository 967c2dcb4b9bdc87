"""Work on a CPU that several processes share.

A small model's operations take too little time for threads to share one: processes of one thread each are through with
theirs in half the time.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from pipeline.plumbing.worker_processes import free_cores, map_parts

Item = TypeVar("Item")
Result = TypeVar("Result")

# Tokens for which it pays to start a process.
WORTH_A_PROCESS = 4096


def on_all_cores(
    work: Callable[[Sequence[Item], bool], Result], items: Sequence[Item], n_tokens: int, device: torch.device
) -> list[Result]:
    """What `work` makes of parts of the items (see `map_parts`): of all of them together on a GPU, or for few tokens.

    Args:
        work: of a part, and whether it may show its progress.
        items: what is shared.
        n_tokens: that are computed for all of them.
        device: where.
    """
    n_parts = min(free_cores(), len(items), n_tokens // WORTH_A_PROCESS) if device.type == "cpu" else 1
    return map_parts(work, items, max(n_parts, 1))
