"""Rounded weights over sharded masters: two ranks in either layout do what one process does with both their tokens."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.distributed.tensor import DTensor

from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.model.decoder import Decoder
from lightning_modules.parallel.configuration import ParallelConfig
from lightning_modules.parallel.dispatch_choice import choose_dispatcher
from lightning_modules.parallel.mesh import build_mesh
from lightning_modules.parallel.sharding import parallelise
from lightning_modules.parallel.whole_experts import GradientSums, gather_experts_whole
from lightning_modules.precision.working_weights import WorkingWeights
from tests.conftest import TINY
from tests.ranks import run_on_ranks

CONFIG = replace(TINY, num_nextn_predict_layers=0)
# With more stacks of experts than take turns.
DEEP = replace(CONFIG, num_hidden_layers=6)
N_RANKS, N_STEPS, LENGTH = 2, 3, 24
LAYOUTS = {"fsdp": ParallelConfig(dp_shard=N_RANKS), "ep": ParallelConfig(ep=N_RANKS)}
# Whether experts gather themselves, and whether blocks are gathered again for their backward pass.
WAYS = {"by fsdp": (False, True), "whole": (True, True), "kept whole": (True, False)}
# By blocks, and at once.
GATHERED_AT_ONCE = {"fsdp": 0, "ep": 10**6}


def train(
    layout: ParallelConfig | None,
    ranks: range,
    gathered_at_once: int = 0,
    config: DecoderConfig = CONFIG,
    gathers_whole: bool = False,
    reshards: bool = True,
) -> dict[str, Any]:
    """The first step's gradients, and each step's loss on the windows of `ranks`: a share of the mean over all."""

    def spread(decoder: Decoder) -> None:
        if layout is not None:
            mesh, policy = build_mesh(layout, "cpu", N_RANKS), MixedPrecisionPolicy()
            parallelise(decoder, mesh, policy, partial(choose_dispatcher, n_chosen=2), gathered_at_once, reshards)

    masters = Decoder(config)
    masters.initialize_weights(seed=3)
    spread(masters)
    working = WorkingWeights(masters, spread)
    if gathers_whole:
        gather_experts_whole(working.decoder, reshards, sums_once=True)
    # AdamW would divide what rounding leaves of a gradient near zero by its own size.
    optimizer = torch.optim.SGD(masters.parameters(), lr=0.02)
    losses, gradients = [], {}
    for step in range(N_STEPS):
        share = torch.zeros(())
        for rank in ranks:
            tokens = torch.arange(17 * rank, 17 * rank + LENGTH + 1).unsqueeze(0) % config.vocab_size
            logits = working.decoder(tokens[:, :-1]).logits
            share = share + F.cross_entropy(logits.flatten(0, 1).float(), tokens[0, 1:]) / N_RANKS
        share.backward()
        # In FP32, which torch's own optimizer asks for.
        working.hand_over_gradients(accumulates=True)
        if step == 0:
            gradients = {name: whole(p.grad) for name, p in masters.named_parameters() if p.grad is not None}
        optimizer.step()
        optimizer.zero_grad()
        working.refresh()
        losses.append(share.item())
    return {"gradients": gradients, "losses": losses}


def whole(tensor: Tensor) -> Tensor:
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).clone()


def train_all(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo")
    for name, layout in LAYOUTS.items():
        torch.save(train(layout, range(rank, rank + 1), GATHERED_AT_ONCE[name]), folder / f"{name}_{rank}.pt")
    for name, (gathers_whole, reshards) in WAYS.items():
        with mock.patch.object(GradientSums, "send", autospec=True, side_effect=GradientSums.send) as send:
            trained = train(LAYOUTS["fsdp"], range(rank, rank + 1), 0, DEEP, gathers_whole, reshards)
        torch.save(trained | {"sent": send.call_count}, folder / f"{name}_{rank}.pt")
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
    for rank in range(N_RANKS):
        expected, *others = (torch.load(tmp_path / f"{name}_{rank}.pt", weights_only=True) for name in WAYS)
        for trained in others:
            assert trained["sent"] > 0
            assert trained["losses"] == expected["losses"]
            torch.testing.assert_close(trained["gradients"], expected["gradients"], rtol=0, atol=0)
