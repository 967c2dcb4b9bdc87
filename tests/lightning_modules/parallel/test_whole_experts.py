"""Experts that gather themselves train as those that FSDP gathers, bit for bit."""

import gc
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from lightning_modules.parallel import whole_experts
from lightning_modules.parallel.configuration import ParallelConfig
from lightning_modules.parallel.whole_experts import GradientSums, WholeStack
from tests.lightning_modules.parallel.sharded_training import CONFIG, N_RANKS, train
from tests.ranks import run_on_ranks

# With more stacks of experts than take turns.
DEEP = replace(CONFIG, num_hidden_layers=6)
# Whether experts gather themselves, and whether blocks are gathered again for their backward pass.
WAYS = {"by fsdp": (False, True), "whole": (True, True), "kept whole": (True, False), "copied": (True, True)}


class PartsOfOthers:
    """Does what `PeerParts` does, by an exchange."""

    n_copied = 0

    def __init__(self, part: Tensor, group: dist.ProcessGroup) -> None:
        self.own, self._group = part.clone(), group

    def copy_to(self, whole: Tensor) -> None:
        PartsOfOthers.n_copied += 1
        dist.all_gather_into_tensor(whole, self.own, group=self._group)


def n_left() -> int:
    """Stacks that nothing needs any more, and that are there all the same."""
    gc.collect()
    return sum(type(thing) is WholeStack for thing in gc.get_objects())


def train_every_way(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo")
    for name, (gathers_whole, reshards) in WAYS.items():
        with ExitStack() as stack:
            send = mock.patch.object(GradientSums, "send", autospec=True, side_effect=GradientSums.send)
            sent = stack.enter_context(send)
            if name == "copied":
                stack.enter_context(mock.patch.object(whole_experts, "can_copy", return_value=True))
                stack.enter_context(mock.patch.object(whole_experts, "PeerParts", PartsOfOthers))
            layout = ParallelConfig(dp_shard=N_RANKS)
            trained = train(layout, range(rank, rank + 1), 0, DEEP, gathers_whole, reshards)
        counts = {"sent": sent.call_count, "copied": PartsOfOthers.n_copied}
        # It keeps what it was called with.
        sent.reset_mock()
        counts["left"] = n_left()
        torch.save(trained | counts, folder / f"{name}_{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.filterwarnings("ignore")
def test_experts_that_gather_themselves_train_as_by_fsdp(tmp_path: Path) -> None:
    run_on_ranks(train_every_way, N_RANKS, tmp_path)
    for rank in range(N_RANKS):
        trained: dict[str, Any] = {name: torch.load(tmp_path / f"{name}_{rank}.pt", weights_only=True) for name in WAYS}
        expected = trained.pop("by fsdp")
        assert trained["copied"]["copied"] > trained["whole"]["copied"] == 0
        for result in trained.values():
            assert result["sent"] > 0
            assert result["left"] == 0, "memory of a training that is over"
            assert result["losses"] == expected["losses"]
            torch.testing.assert_close(result["gradients"], expected["gradients"], rtol=0, atol=0)
