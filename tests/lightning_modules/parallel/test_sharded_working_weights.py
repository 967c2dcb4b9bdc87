"""Rounded weights over sharded masters: two ranks in either layout do what one process does with both their tokens."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from lightning_modules.parallel.configuration import ParallelConfig
from tests.lightning_modules.parallel.sharded_training import N_RANKS, train
from tests.ranks import run_on_ranks

LAYOUTS = {"fsdp": ParallelConfig(dp_shard=N_RANKS), "ep": ParallelConfig(ep=N_RANKS)}
# By blocks, and at once.
GATHERED_AT_ONCE = {"fsdp": 0, "ep": 10**6}


def train_all(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo")
    for name, layout in LAYOUTS.items():
        torch.save(train(layout, range(rank, rank + 1), GATHERED_AT_ONCE[name]), folder / f"{name}_{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.filterwarnings("ignore")
def test_layouts_train_alike(tmp_path: Path) -> None:
    run_on_ranks(train_all, N_RANKS, tmp_path)
    alone = train(None, range(N_RANKS))
    for name in LAYOUTS:
        ranks = [torch.load(tmp_path / f"{name}_{rank}.pt", weights_only=True) for rank in range(N_RANKS)]
        losses = [sum(shares) for shares in zip(*(rank["losses"] for rank in ranks), strict=True)]
        assert losses == pytest.approx(alone["losses"], rel=5e-3), name
        assert ranks[0]["gradients"].keys() == alone["gradients"].keys()
        for tensor, expected in alone["gradients"].items():
            # All that differs is where sums over tokens of both ranks are rounded to BF16.
            error = (ranks[0]["gradients"][tensor] - expected).norm() / expected.norm()
            assert error < 5e-3, (name, tensor)
