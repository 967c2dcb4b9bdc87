"""A plan as plain numbers: one layout in full, all others in short, and which to take."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from lightning_modules.model.counting import ParameterCounts
from pipeline.planning.communication import StepTraffic
from pipeline.planning.fake_ranks import ShardSizes
from pipeline.planning.memory import GIB, StepMemory
from pipeline.planning.settings import GpuConfig, Layout, PlannedTraining
from pipeline.planning.sweep import RULE, Candidate

# What the GPU holds at the fullest moment, in the order it is told.
PARTS = (
    "parameters",
    "working_weights",
    "average",
    "gradients",
    "optimizer",
    "activations",
    "logits",
    "gathered",
    "reduction",
    "temporary",
    "workspaces",
)


def plan_report(
    training: PlannedTraining,
    layout: Layout,
    gpu: GpuConfig,
    counts: ParameterCounts,
    sizes: ShardSizes,
    memories: Mapping[str, StepMemory],
    traffic: StepTraffic,
    candidates: list[Candidate],
) -> dict[str, Any]:
    """Everything the planner found, ready for JSON.

    Args:
        training: what is trained.
        layout: the layout that was asked for.
        gpu: what it runs on.
        counts: the decoder's parameters.
        sizes: those of the sharded decoder.
        memories: of the layout asked for, by what is recomputed.
        traffic: of the layout asked for.
        candidates: all layouts, the best first.
    """
    asked = memories[training.recompute]
    best = candidates[0]
    windows_per_step = training.batch_size * training.accumulate_grad_batches * layout.world_size // layout.cp
    return {
        "gpu": asdict(gpu),
        "layout": _layout(layout) | _economies(training.recompute, training.reduce_every_micro_batch),
        "training": {
            "precision": training.precision,
            "optimizer": training.optimizer,
            "moments": training.moments,
            "batch_size": training.batch_size,
            "sequence_length": training.sequence_length,
            "accumulate_grad_batches": training.accumulate_grad_batches,
            "windows_per_step": windows_per_step,
            "tokens_per_step": windows_per_step * training.sequence_length,
        },
        "parameters": {
            "total": counts.total,
            "active": counts.active,
            "mtp": counts.mtp,
            "trained": sizes.total,
            "local": sizes.local,
            "local_experts": sizes.local_experts,
        },
        "memory": {
            **{f"{part}_gib": _gib(asked.fullest.parts[part]) for part in PARTS},
            "activations_gib": _gib(asked.activations),
            "fragmentation_gib": _gib(asked.fragmentation),
            "context_gib": _gib(asked.context),
            "total_gib": _gib(asked.total),
            "available_gib": gpu.memory_gib,
            "fullest": asked.fullest.phase,
        },
        "by_recompute": {
            kind: {
                "activations_gib": _gib(memory.activations),
                "total_gib": _gib(memory.total),
                "host_gib": _gib(memory.host),
            }
            for kind, memory in memories.items()
        },
        "fits": asked.total <= gpu.memory_bytes,
        "communication": traffic.as_dict(),
        "recommended": _candidate(best),
        "reason": _reason(best, gpu, len(candidates)),
        "sweep": [_candidate(candidate) for candidate in candidates],
    }


def _reason(best: Candidate, gpu: GpuConfig, n_candidates: int) -> str:
    if best.fits:
        return f"Of {n_candidates} layouts {RULE}."
    missing = f"{'at least ' if best.memory is None else ''}{_gib(best.total) - gpu.memory_gib:.1f} GiB"
    return (
        f"None of {n_candidates} layouts fits {gpu.name}, whatever is recomputed: this one lacks least, "
        f"{missing}. Lower trainer.batch_size or trainer.sequence_length, or raise nodes."
    )


def _candidate(candidate: Candidate) -> dict[str, Any]:
    of_layout = _layout(candidate.layout) | _economies(candidate.recompute, candidate.reduce_every_micro_batch)
    return of_layout | {
        "accumulate_grad_batches": candidate.accumulate_grad_batches,
        "total_gib": _gib(candidate.total),
        # Where what no step can do without is too much, the rest was not counted.
        "is_lower_bound": candidate.memory is None,
        "fits": candidate.fits,
        "inter_node_gib": _gib(candidate.traffic.total.inter_node),
        "intra_node_gib": _gib(candidate.traffic.total.intra_node),
    }


def _economies(recompute: str, reduce_every_micro_batch: bool) -> dict[str, Any]:
    return {"recompute": recompute, "reduce_every_micro_batch": reduce_every_micro_batch}


def _layout(layout: Layout) -> dict[str, int]:
    return {
        "dp_replicate": layout.dp_replicate,
        "dp_shard": layout.dp_shard,
        "ep": layout.ep,
        "cp": layout.cp,
        "world_size": layout.world_size,
        "gpus_per_node": layout.gpus_per_node,
    }


def _gib(size: float) -> float:
    return round(size / GIB, 3)
