"""What recompute leaves to be kept where tokens go through a dispatcher between ranks."""

import copy
from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist

from lightning_modules.model.experts import MixtureOfExperts
from lightning_modules.parallel.all_gather import AllGatherDispatcher
from lightning_modules.parallel.all_to_all import AllToAllDispatcher
from tests.lightning_modules.model.kept_bytes import kept_bytes


@pytest.fixture
def alone() -> Iterator[dist.ProcessGroup]:
    """A group of one rank, through which rows travel all the same."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield dist.group.WORLD
    dist.destroy_process_group()


@pytest.mark.parametrize("kind", [AllToAllDispatcher, AllGatherDispatcher, None])
def test_cheap_activations_dropped_leave_less_than_none_do(build_decoder, alone: dist.ProcessGroup, kind) -> None:
    # Experts that weigh most, narrow against the rows that travel.
    decoder = build_decoder(hidden_size=64, moe_intermediate_size=16, num_experts_per_tok=4)
    for module in decoder.modules():
        if isinstance(module, MixtureOfExperts) and kind is not None:
            module.dispatcher = kind(decoder.config.n_routed_segments, alone)
    lean = copy.copy(decoder)
    lean.recompute = "activations"
    tokens = torch.randint(0, 40, (4, 129))
    decoder(tokens)  # what is allocated once
    (plain, expected), (recomputed, output) = kept_bytes(decoder, tokens), kept_bytes(lean, tokens)
    assert recomputed < plain
    gradients = [
        torch.autograd.grad(result.logits.square().mean(), list(decoder.layers.parameters()), allow_unused=True)
        for result in (expected, output)
    ]
    for ours, wanted in zip(*gradients, strict=True):
        assert ours is wanted is None or torch.equal(ours, wanted)
