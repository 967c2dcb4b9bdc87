"""Plan a training: one layout in full, and all others beside it."""

from dataclasses import replace
from typing import Any

from lightning_modules.model.counting import build_on_meta, count_parameters
from lightning_modules.model.recompute_kinds import RECOMPUTE_KINDS
from lightning_modules.parallel.configuration import ParallelConfig
from pipeline.planning.communication import step_traffic
from pipeline.planning.fake_ranks import ShardSizes, shard_sizes, sharded_decoder, standing_for_rank_0
from pipeline.planning.memory import StepMemory, step_memory
from pipeline.planning.rehearsals import Rehearsals
from pipeline.planning.report import plan_report
from pipeline.planning.settings import GpuConfig, Layout, PlannedTraining
from pipeline.planning.sweep import Candidate, possible_layouts, sharing_sizes, sweep


def plan(training: PlannedTraining, strategy: ParallelConfig, gpu: GpuConfig) -> dict[str, Any]:
    """What the training needs of each GPU in the layout that `strategy` describes, and which layout is best.

    The layout asked for is sharded whole, by the strategy's own function, rank 0 standing for all. Activations and
    what else a step allocates are those of a few blocks, of which others are like.

    Raises:
        ValueError: sizes do not multiply or divide; the message names the key.
    """
    layout = Layout.of(strategy)
    strategy.check_length(training.sequence_length)
    training = training.over(layout)
    sizes = _sizes(training, layout)
    rehearsals = Rehearsals(gpu)
    candidates = candidates_of(training, strategy, gpu, rehearsals)
    return _report(training, layout, sizes, candidates, gpu, rehearsals, strategy.dispatch)


def plan_best(training: PlannedTraining, strategy: ParallelConfig, gpu: GpuConfig) -> dict[str, Any]:
    """The same of the best layout for as many ranks, whichever `strategy` describes.

    Raises:
        ValueError: no layout's sizes divide; the message names the keys.
    """
    # What remains of the strategy has to be possible.
    Layout.of(replace(strategy, dp_replicate=1, dp_shard=None, ep=1))
    if training.global_batch is None:
        strategy.check_length(training.sequence_length)
    rehearsals = Rehearsals(gpu)
    candidates = candidates_of(training, strategy, gpu, rehearsals)
    best = candidates[0]
    training = replace(
        training.over(best.layout),
        recompute=best.recompute,
        reduce_every_micro_batch=best.reduce_every_micro_batch,
    )
    sizes = _sizes(training, best.layout)
    return _report(training, best.layout, sizes, candidates, gpu, rehearsals, strategy.dispatch)


def candidates_of(
    training: PlannedTraining, strategy: ParallelConfig, gpu: GpuConfig, rehearsals: Rehearsals
) -> list[Candidate]:
    """Every layout with as few ranks to a window as it takes for one to fit, the best first.

    Raises:
        ValueError: no layout's sizes divide; the message names the keys.
    """
    gpus_per_node = strategy.gpus_per_node or 1
    n_ranks = strategy.nodes * gpus_per_node
    candidates: list[Candidate] = []
    for cp in sharing_sizes(training, n_ranks, gpus_per_node, strategy.cp):
        layouts = list(possible_layouts(training.decoder, strategy.nodes, gpus_per_node, cp))
        candidates = sweep(training, gpu, layouts, rehearsals, strategy.dispatch) if layouts else candidates
        if candidates and candidates[0].fits:
            break
    if not candidates:
        raise ValueError(
            f"Experts and their matrices divide over no layout of {n_ranks} ranks: model.n_routed_experts over "
            "strategy.ep, model.hidden_size and model.moe_intermediate_size over what is left; change nodes or "
            "gpus_per_node."
        )
    return candidates


def _sizes(training: PlannedTraining, layout: Layout) -> ShardSizes:
    with standing_for_rank_0(layout.world_size):
        return shard_sizes(sharded_decoder(training, layout))


def _report(
    training: PlannedTraining,
    layout: Layout,
    sizes: ShardSizes,
    candidates: list[Candidate],
    gpu: GpuConfig,
    rehearsals: Rehearsals,
    dispatch: str,
) -> dict[str, Any]:
    return plan_report(
        training,
        layout,
        gpu,
        count_parameters(build_on_meta(training.decoder)),
        sizes,
        memory_by_recompute(training, layout, gpu, rehearsals),
        step_traffic(training, layout, dispatch, gpu.has_fp8),
        candidates,
    )


def memory_by_recompute(
    training: PlannedTraining, layout: Layout, gpu: GpuConfig, rehearsals: Rehearsals
) -> dict[str, StepMemory]:
    """What one layout takes, by what is recomputed."""
    economies = {kind: replace(training, recompute=kind) for kind in RECOMPUTE_KINDS}
    return {kind: step_memory(one, layout, gpu, rehearsals.of(one, layout)) for kind, one in economies.items()}
