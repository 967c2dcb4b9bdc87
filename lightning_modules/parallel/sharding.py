"""Where every parameter of a decoder lives: experts over `ep`, everything over data-parallel ranks (FSDP2)."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import Placement, Replicate, Shard, distribute_tensor

from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.model.decoder import Block, Decoder, PredictionModule
from lightning_modules.model.dispatch import Dispatcher
from lightning_modules.model.experts import GroupedExperts, MixtureOfExperts
from lightning_modules.model.router import Router
from lightning_modules.parallel.all_to_all import all_to_all_dispatcher
from lightning_modules.parallel.gradient_sum import SumInOnePlace
from lightning_modules.parallel.rows_over_ranks import RowsOverRanks

MakeDispatcher = Callable[[int, DeviceMesh], Dispatcher]

# Up to so many parameters, a GiB in BF16, cost less memory than what the host does around every block to save it.
GATHERED_AT_ONCE = 2**29


def parallelise(
    decoder: Decoder,
    mesh: DeviceMesh,
    policy: MixedPrecisionPolicy,
    make_dispatcher: MakeDispatcher = all_to_all_dispatcher,
    gathered_at_once: int = GATHERED_AT_ONCE,
    reshard_after_forward: bool = True,
) -> None:
    """Shard `decoder` in place over `mesh`, as `build_mesh` arranges it; parameters may be on the meta device.

    Experts are split over `ep` and, matrix by matrix, over `dp_shard` and `cp`; all else over the three. Over
    `dp_replicate` there are copies. Ranks of `cp` share the rows they compute. A block's parameters are gathered whole
    when it runs, one block ahead, and dropped after it. Gradients are summed over ranks, not averaged: each rank's loss
    has to be its share of the global mean.

    Where what is gathered of all blocks is little, it is gathered as a step begins, and dropped as it ends.

    Routers gather their own weights: these are small, and FP32 whatever `policy` says, because a rounded score changes
    the choice of experts (arXiv 2412.19437, section 3.3.1). Every rank keeps them whole where the rest is little.

    Where `policy` casts nothing, what a single rank would hold stays as it is: gathering it would only copy it.

    Args:
        decoder: whose parameters are whole so far.
        mesh: as above.
        policy: types of gathered parameters and of gradients' reduction. Inputs are never cast: rotary angles stay
            FP32.
        make_dispatcher: from the number of routed experts and the `ep` mesh to the layers' dispatcher.
        gathered_at_once: how many parameters, of which every rank gathers all, are little.
        reshard_after_forward: whether a block's parameters are dropped between its forward and its backward pass.

    Raises:
        ValueError: when a size of the decoder does not divide; the message names it.
    """
    check_divisible(decoder.config, mesh)
    if mesh["cp"].size() > 1:
        decoder.shared_rows = RowsOverRanks(mesh["cp"].get_group())
    ways = _Ways.over(mesh, replace(policy, cast_forward_inputs=False), reshard_after_forward)
    gathers_blocks = _n_gathered(decoder, ways.splits_experts) > gathered_at_once
    _spread_mixtures(decoder, ways, make_dispatcher, Shard(0) if gathers_blocks else Replicate())
    units = [_shard_block(block, ways, gathers_blocks) for block in decoder.blocks()]
    if ways.shards_dense:
        elsewhere = {parameter for block in decoder.blocks() for parameter in _elsewhere(block, ways)}
        root = partial(fully_shard, mesh=ways.dense, mp_policy=ways.policy, shard_placement_fn=ways.placement)
        root(decoder, ignored_params=elsewhere)
        register_fsdp_forward_method(decoder, Decoder.losses.__name__)
        _sum_gradients(decoder)
        _prefetch(decoder, units)


@dataclass(frozen=True)
class _Ways:
    """How parameters are spread.

    Attributes:
        dense: the ranks that everything but experts is split over.
        experts: those that an expert's matrices are split over.
        ep: those that experts are spread over.
        n_dense: ranks of `dense` that hold different parts.
        policy: types of what is gathered and reduced.
        reshard_after_forward: whether blocks are gathered anew for their backward pass.
    """

    dense: DeviceMesh
    experts: DeviceMesh
    ep: DeviceMesh
    n_dense: int
    policy: MixedPrecisionPolicy
    reshard_after_forward: bool

    @classmethod
    def over(cls, mesh: DeviceMesh, policy: MixedPrecisionPolicy, reshard_after_forward: bool) -> "_Ways":
        """Over `mesh`, as `build_mesh` arranges it."""
        return cls(
            _data_parallel_mesh(mesh, "dp_shard_cp_ep"),
            _data_parallel_mesh(mesh, "dp_shard_cp"),
            mesh["ep"],
            mesh["dp_shard_cp_ep"].size(),
            policy,
            reshard_after_forward,
        )

    @property
    def splits_experts(self) -> bool:
        """Whether ranks hold different experts."""
        return self.ep.size() > 1

    @property
    def shards_dense(self) -> bool:
        """Whether FSDP has anything to do for what is not an expert's."""
        return _is_sharded(self.dense, self.policy)

    @property
    def shards_experts(self) -> bool:
        """Whether it has for experts, apart from all else."""
        return self.splits_experts and _is_sharded(self.experts, self.policy)

    def placement(self, parameter: nn.Parameter) -> Shard:
        """Whole experts to each rank where they divide: matrices split by rows are copied once more when gathered."""
        return _by_rows(parameter) if parameter.ndim == 3 and parameter.shape[0] % self.n_dense else Shard(0)


def _mixture(block: nn.Module) -> MixtureOfExperts | None:
    """A block's experts, if it has any."""
    assert isinstance(block, Block | PredictionModule)
    network = (block.block if isinstance(block, PredictionModule) else block).mlp
    return network if isinstance(network, MixtureOfExperts) else None


def _spread_mixtures(decoder: Decoder, ways: _Ways, make_dispatcher: MakeDispatcher, of_routers: Placement) -> None:
    """Have tokens find experts on other ranks, split these, and lay routers' weights as they gather them."""
    # One for all layers: a dispatcher may hold a buffer.
    dispatcher = make_dispatcher(decoder.config.n_routed_segments, ways.ep)
    for mixture in filter(None, map(_mixture, decoder.blocks())):
        mixture.dispatcher = dispatcher
        _spread_router(mixture.gate, ways.dense, of_routers)
        if ways.splits_experts:
            _split_experts(mixture.experts, ways.ep)


def _elsewhere(block: nn.Module, ways: _Ways) -> set[nn.Parameter]:
    """Parameters of a block that are not gathered with it."""
    mixture = _mixture(block)
    if mixture is None:
        return set()
    return set(mixture.gate.parameters()) | (set(mixture.experts.parameters()) if ways.splits_experts else set())


def _shard_block(block: nn.Module, ways: _Ways, gathers_blocks: bool) -> list[nn.Module]:
    """Let FSDP shard a block, and experts that are spread otherwise; returns what may be gathered for it."""
    shard = partial(fully_shard, mp_policy=ways.policy, reshard_after_forward=ways.reshard_after_forward)
    unit, mixture, elsewhere = [block], _mixture(block), _elsewhere(block, ways)
    if mixture is not None and ways.shards_experts:
        # One unit even where the experts are segmented: a rank whose tokens leave out a segment joins in its
        # collectives all the same.
        shard(mixture.experts, mesh=ways.experts, shard_placement_fn=_by_rows)
        # By which experts in FP8 take whole tokens (see `QuantisedMixture`).
        if hasattr(mixture.experts, "mix"):
            register_fsdp_forward_method(mixture.experts, "mix")
        unit.append(mixture.experts)
    if ways.shards_dense and gathers_blocks:
        shard(block, mesh=ways.dense, shard_placement_fn=ways.placement, ignored_params=elsewhere)
    return unit


def _is_sharded(mesh: DeviceMesh, policy: MixedPrecisionPolicy) -> bool:
    return mesh.size() > 1 or policy.param_dtype is not None


def check_divisible(config: DecoderConfig, mesh: DeviceMesh) -> None:
    """Check that experts divide over `ep`, and their matrices over `dp_shard` and `cp`.

    Raises:
        ValueError: naming the size that does not.
    """
    ep, dp_shard, cp = (mesh[name].size() for name in ("ep", "dp_shard", "cp"))
    sizes = set(config.segment_sizes)
    # Stacks of one place in the split hold a segment of every expert: an expert's segments stay together.
    name, n_experts = ("n_routed_experts", config.n_routed_experts)
    if len(sizes) == 1 and config.num_expert_segments > 1:
        name, n_experts = "n_routed_experts × model.num_expert_segments", config.n_routed_segments
    if n_experts % ep:
        raise ValueError(
            f"model.{name} ({n_experts}) does not divide over strategy.ep ({ep}); make it a multiple, or lower ep."
        )
    for name, size in [("hidden_size", config.hidden_size)] + [("moe_intermediate_size, twice,", 2 * s) for s in sizes]:
        if size % (dp_shard * cp):
            shared = f" × strategy.cp ({cp})" if cp > 1 else ""
            raise ValueError(
                f"model.{name} ({size}) does not divide over strategy.dp_shard ({dp_shard}){shared}, over which every "
                "expert's matrices are split by rows; raise strategy.ep or strategy.dp_replicate."
            )


def _data_parallel_mesh(mesh: DeviceMesh, shard: str) -> DeviceMesh:
    """Over `shard` alone or, where there are replicas, over both (HSDP)."""
    return mesh["dp_replicate", shard] if mesh["dp_replicate"].size() > 1 else mesh[shard]


def _split_experts(experts: nn.Module, ep_mesh: DeviceMesh) -> None:
    """Make every stack a DTensor of which each rank of `ep_mesh` holds a run of experts."""
    for stack in experts.modules():
        if isinstance(stack, GroupedExperts):
            for name, weight in list(stack.named_parameters(recurse=False)):
                # All ranks hold the same full weight, or none at all on the meta device: nothing has to be sent.
                local = distribute_tensor(weight.detach(), ep_mesh, [Shard(0)], src_data_rank=None)
                setattr(stack, name, nn.Parameter(local, requires_grad=weight.requires_grad))


def _n_gathered(decoder: Decoder, splits_experts: bool) -> int:
    """Numbers of all parameters but routers' and experts' that are split over ranks."""
    elsewhere = (Router, GroupedExperts) if splits_experts else Router
    within = {id(p) for module in decoder.modules() if isinstance(module, elsewhere) for p in module.parameters()}
    return sum(p.numel() for p in decoder.parameters() if id(p) not in within)


def _spread_router(router: nn.Module, mesh: DeviceMesh, placement: Placement) -> None:
    """Make its weights DTensors, which lie as FSDP would shard them or whole; a single rank keeps them as they are."""
    if mesh.size() == 1:
        return
    placements = [placement] if mesh.ndim == 1 else [Replicate(), placement]
    for module in router.modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            local = distribute_tensor(weight.detach(), mesh, placements, src_data_rank=None)
            setattr(module, name, nn.Parameter(local, requires_grad=weight.requires_grad))


def _by_rows(parameter: nn.Parameter) -> Shard:
    """Every expert's matrix in equal parts."""
    return Shard(1)


def _sum_gradients(decoder: Decoder) -> None:
    """Plain sums over ranks, for dense parameters and experts alike, although they are reduced over different groups.

    The loss is divided by what is global beforehand. Dividing here instead needs a reduction that Gloo lacks
    (PREMUL_SUM), and with a single shard torch 2.11 divides twice by any factor but 1.
    """
    for module in decoder.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
            module.set_custom_reduce_scatter(SumInOnePlace())


def _prefetch(decoder: Decoder, units: list[list[nn.Module]]) -> None:
    """Gather the next block's parameters while one computes.

    By itself FSDP gathers a block once the host has come to it. Token dispatch makes the host wait within every block,
    so the next one has to be asked for before.
    """
    root = cast(FSDPModule, decoder)
    gathered = [[cast(FSDPModule, module) for module in unit if isinstance(module, FSDPModule)] for unit in units]
    blocks = [unit for unit in gathered if unit]
    if not blocks:
        return
    root.set_modules_to_forward_prefetch(blocks[0])
    for this, following in zip(blocks, blocks[1:], strict=False):
        this[0].set_modules_to_forward_prefetch(following)
        following[0].set_modules_to_backward_prefetch(this)
    root.set_modules_to_backward_prefetch(blocks[-1])
