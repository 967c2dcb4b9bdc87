"""A stand-in for Lightning's Trainer."""

from types import SimpleNamespace
from typing import Any

import torch


def fake_trainer(rank: int, world_size: int, accumulate: int = 1, global_step: int = 0) -> Any:
    """What the data module asks a Trainer for; the count of batches is the one a checkpoint would bring."""

    def count() -> SimpleNamespace:
        return SimpleNamespace(ready=99, started=99, processed=99, completed=98)

    progress = SimpleNamespace(total=count(), current=count())
    return SimpleNamespace(
        global_rank=rank,
        world_size=world_size,
        accumulate_grad_batches=accumulate,
        global_step=global_step,
        fit_loop=SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=progress)),
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
    )
