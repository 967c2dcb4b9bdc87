"""One process that stands for rank 0 of many: nothing is sent, and weights have shapes only."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor
from torch.testing._internal.distributed.fake_pg import FakeStore

from lightning_modules.model.counting import build_on_meta
from lightning_modules.model.decoder import Decoder
from lightning_modules.parallel.dispatch_choice import choose_dispatcher
from lightning_modules.parallel.mesh import build_mesh
from lightning_modules.parallel.sharding import parallelise
from lightning_modules.precision.plugins import ShardedPrecision, build_precision, working_policy
from lightning_modules.precision.working_weights import round_parameters
from pipeline.planning.settings import Layout, PlannedTraining


@dataclass(frozen=True)
class ShardSizes:
    """Numbers of a decoder's parameters: all of them, and those that rank 0 keeps."""

    total: int
    local: int
    local_experts: int


@contextmanager
def standing_for_rank_0(world_size: int) -> Iterator[None]:
    """A process group of `world_size` ranks, of which this is the first, and the others do not exist.

    Raises:
        RuntimeError: when the process belongs to a group already.
    """
    if dist.is_initialized():
        raise RuntimeError("The planner needs a process of its own: this one belongs to a process group already.")
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=world_size)
    try:
        yield
    finally:
        dist.destroy_process_group()


def sharded_decoder(training: PlannedTraining, layout: Layout) -> Decoder:
    """Rank 0's decoder that computes, on the meta device; call it within `standing_for_rank_0`.

    Raises:
        ValueError: when a size of the decoder does not divide over the layout.
    """
    decoder = build_on_meta(training.decoder)
    plugin = build_precision(training.precision, sharded=True)
    assert isinstance(plugin, ShardedPrecision)
    if training.has_working_weights:
        round_parameters(decoder)
    plugin.convert_module(decoder)
    # Gathering lists of ranks is all the mesh does here, and the CPU needs no driver for that.
    mesh = build_mesh(layout.config(), "cpu", layout.world_size)
    policy = working_policy(sums_again(training, layout)) if training.has_working_weights else plugin.fsdp_policy
    # Block by block, as a decoder is that memory has to be planned for.
    choose = partial(
        choose_dispatcher,
        n_chosen=training.decoder.num_segments_per_tok,
        # Rows that DeepEP brings are as many as those of an all-to-all.
        kind="all_gather" if training.gathers_tokens(layout) else "all_to_all",
    )
    parallelise(decoder, mesh, policy, choose, gathered_at_once=0)
    return decoder


def sums_again(training: PlannedTraining, layout: Layout) -> bool:
    """Whether gradients that ranks have summed are summed over micro-batches or replicas as well."""
    return training.keeps_whole_gradients or layout.dp_replicate > 1


def shard_sizes(decoder: Decoder) -> ShardSizes:
    """Count the parameters of a sharded decoder."""
    total = local = experts = 0
    for name, parameter in decoder.named_parameters():
        n_local = local_shard(parameter).numel()
        total += parameter.numel()
        local += n_local
        experts += n_local if ".experts." in name else 0
    return ShardSizes(total, local, experts)


def local_shard(tensor: torch.Tensor) -> torch.Tensor:
    """This rank's part of a DTensor; any other tensor as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
