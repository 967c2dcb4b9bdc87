"""Plan a training: one layout in full, and all others beside it."""

from dataclasses import replace
from typing import Any

from lightning_modules.model.counting import build_on_meta, count_parameters
from lightning_modules.model.recompute_kinds import RECOMPUTE_KINDS
from lightning_modules.parallel.configuration import ParallelConfig
from pipeline.planning.communication import step_traffic
from pipeline.planning.fake_ranks import shard_sizes, sharded_decoder, standing_for_rank_0
from pipeline.planning.memory import StepMemory, step_memory
from pipeline.planning.rehearsals import Rehearsals
from pipeline.planning.report import plan_report
from pipeline.planning.settings import GpuConfig, Layout, PlannedTraining
from pipeline.planning.sweep import possible_layouts, sweep


def plan(training: PlannedTraining, strategy: ParallelConfig, gpu: GpuConfig) -> dict[str, Any]:
    """What the training needs of each GPU in the layout that `strategy` describes, and which layout is best.

    The layout asked for is sharded whole, by the strategy's own function, rank 0 standing for all. Activations and
    what else a step allocates are those of a few blocks, of which others are like.

    Raises:
        ValueError: sizes do not multiply or divide; the message names the key.
    """
    layout = Layout.of(strategy)
    strategy.check_length(training.sequence_length)
    with standing_for_rank_0(layout.world_size):
        sizes = shard_sizes(sharded_decoder(training, layout))
    rehearsals = Rehearsals(gpu)
    layouts = list(possible_layouts(training.decoder, strategy.nodes, layout.gpus_per_node, layout.cp))
    return plan_report(
        training,
        layout,
        gpu,
        count_parameters(build_on_meta(training.decoder)),
        sizes,
        memory_by_recompute(training, layout, gpu, rehearsals),
        step_traffic(training, layout, strategy.dispatch, gpu.has_fp8),
        sweep(training, gpu, layouts, rehearsals, strategy.dispatch),
    )


def memory_by_recompute(
    training: PlannedTraining, layout: Layout, gpu: GpuConfig, rehearsals: Rehearsals
) -> dict[str, StepMemory]:
    """What one layout takes, by what is recomputed."""
    economies = {kind: replace(training, recompute=kind) for kind in RECOMPUTE_KINDS}
    return {kind: step_memory(one, layout, gpu, rehearsals.of(one, layout)) for kind, one in economies.items()}
