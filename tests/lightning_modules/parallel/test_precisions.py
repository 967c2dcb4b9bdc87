"""Training on four ranks in low precision, against one process in the same precision."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from lightning_modules.parallel.configuration import ParallelConfig
from tests.lightning_modules.parallel.layout_trainings import CASES, train
from tests.ranks import run_on_ranks

LAYOUT = ParallelConfig(ep=2)
PRECISIONS = ("bf16", "fp8_deepseek")


def train_in_each(rank: int, folder: Path) -> None:
    for precision in PRECISIONS:
        result = train(CASES["skewed"], LAYOUT, folder / precision, precision)
        if rank == 0:
            torch.save(result["losses"], folder / f"{precision}.pt")
    dist.barrier()


@pytest.mark.filterwarnings("ignore")
def test_ranks_learn_in_low_precision_what_one_process_does(tmp_path: Path) -> None:
    run_on_ranks(train_in_each, 4, tmp_path)
    for precision in PRECISIONS:
        losses = torch.load(tmp_path / f"{precision}.pt", weights_only=True)
        alone = train(CASES["skewed"], None, tmp_path / f"{precision}_alone", precision)["losses"]
        assert losses.keys() == alone.keys()
        # Gradients and activations are rounded in another order; a wrong share would be off by tens of per cent.
        assert list(losses.values()) == pytest.approx(list(alone.values()), rel=0.02)
