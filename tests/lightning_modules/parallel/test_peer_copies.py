"""Parts that ranks copy from each other: on a machine with two GPUs."""

import os
from pathlib import Path
from unittest import mock

import pytest
import torch
import torch.distributed as dist

from lightning_modules.parallel.peer_copies import Meeting, PeerParts, can_copy
from tests.ranks import run_on_ranks

N_RANKS = 2


def copy_from_each_other(rank: int, folder: Path) -> None:
    device = torch.device("cuda", rank)
    torch.cuda.set_device(device)
    os.environ["LOCAL_RANK"] = str(rank)
    dist.init_process_group("nccl", device_id=device)
    assert can_copy(dist.group.WORLD, device)
    meeting = Meeting(dist.group.WORLD, device)
    parts = PeerParts(torch.full((3, 5), rank, dtype=torch.bfloat16, device=device), dist.group.WORLD)
    whole = torch.empty(3 * N_RANKS, 5, dtype=torch.bfloat16, device=device)
    # Written anew between two gathers, as a step does.
    for added in (0, 10):
        parts.own.add_(added)
        meeting.wait()
        parts.copy_to(whole)
        meeting.wait()
        expected = torch.tensor([0.0, 1.0], device=device).repeat_interleave(3) + added
        assert torch.equal(whole, expected.bfloat16()[:, None].expand(-1, 5))
    dist.destroy_process_group()


@pytest.mark.skipif(torch.cuda.device_count() < N_RANKS, reason="needs two GPUs")
def test_every_rank_reads_all_parts(tmp_path: Path) -> None:
    run_on_ranks(copy_from_each_other, N_RANKS, tmp_path)


def test_cpus_exchange() -> None:
    assert not can_copy(mock.Mock(), torch.device("cpu"))
