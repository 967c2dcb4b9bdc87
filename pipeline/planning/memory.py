"""What a step takes of a GPU's memory at its fullest, and what that is for."""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from lightning_modules.precision.recipes import RECIPES
from pipeline.planning.depth import kept_activations, whole_step
from pipeline.planning.rehearsal import Rehearsal
from pipeline.planning.settings import GpuConfig, Layout, PlannedTraining
from pipeline.planning.shards import FP32_BYTES, local_bytes, n_local_hidden, n_local_parameters, parameter_units

GIB = 2**30
MOMENT_BYTES = {"fp32": 4, "bf16": 2}
# cuBLAS keeps 32 MiB on Hopper for each thread that calls it: that of the forward and that of the backward pass.
CUBLAS_WORKSPACES = 2 * 32 * 2**20


@dataclass(frozen=True)
class Moment:
    """Bytes in use at one moment of a step, by what they are for; `phase` says when that is."""

    phase: str
    parts: Counter[str]

    @property
    def total(self) -> int:
        """All bytes that torch's allocator has handed out."""
        return self.parts.total()


@dataclass(frozen=True)
class StepMemory:
    """A step's memory on one rank.

    Attributes:
        fullest: the moment with most bytes in use.
        activations: bytes kept for the backward pass once the forward pass is done.
        fragmentation: bytes that the allocator holds beside those in use.
        context: bytes that it does not know of: CUDA's, NCCL's, those of kernels.
        host: bytes of the host's pinned memory, where inputs of blocks wait.
    """

    fullest: Moment
    activations: int
    fragmentation: int
    context: int
    host: int

    @property
    def total(self) -> int:
        """All bytes of the GPU."""
        return self.fullest.total + self.fragmentation + self.context


def step_memory(training: PlannedTraining, layout: Layout, gpu: GpuConfig, rehearsal: Rehearsal) -> StepMemory:
    """Put a rehearsal of a few blocks together to a step of them all."""
    moments = list(_moments(training, layout, gpu, rehearsal))
    fullest = max(moments, key=lambda moment: moment.total)
    return StepMemory(
        fullest,
        activations=kept_activations(training.decoder, rehearsal),
        fragmentation=round(gpu.fragmentation * fullest.total),
        context=round(gpu.context_gib * GIB),
        host=_offloaded_bytes(training, layout),
    )


def _offloaded_bytes(training: PlannedTraining, layout: Layout) -> int:
    """The inputs of all blocks; prediction modules have two."""
    if training.recompute != "blocks_offloaded":
        return 0
    n_inputs = training.decoder.num_hidden_layers + 2 * training.decoder.num_nextn_predict_layers
    return n_inputs * (training.n_tokens // layout.cp) * training.decoder.hidden_size * training.gathered_bytes


def static_bytes(training: PlannedTraining, layout: Layout, gpu: GpuConfig) -> Counter[str]:
    """Bytes that stay: FP32 parameters, what computes in their place, the optimizer's moments, cuBLAS's workspaces.

    Gradients are those of a whole step. Where micro-batches are accumulated they stay as well, in FP32: as shards, or
    each rank sums its own gradients of all it gathers, and reduces them once.
    """
    n_local = n_local_parameters(training.decoder, layout)
    if training.keeps_whole_gradients:
        gradients = FP32_BYTES * sum(unit.n_gathered(layout) for unit in parameter_units(training.decoder))
    else:
        number = FP32_BYTES if training.accumulates else training.gradient_bytes
        gradients = local_bytes(training.decoder, layout, number).total()
    return Counter(
        parameters=n_local * FP32_BYTES,
        working_weights=_working_bytes(training, layout, gpu) if training.has_working_weights else 0,
        average=n_local * FP32_BYTES if training.averages_beside else 0,
        gradients=gradients,
        optimizer=_n_moments(training, layout) * MOMENT_BYTES[training.moments],
        workspaces=CUBLAS_WORKSPACES,
    )


def _n_moments(training: PlannedTraining, layout: Layout) -> int:
    """Numbers that the optimizer keeps: two for each parameter, or one for what Muon steps."""
    two_each = 2 * n_local_parameters(training.decoder, layout)
    return two_each - (n_local_hidden(training.decoder, layout) if training.optimizer == "muon" else 0)


def _working_bytes(training: PlannedTraining, layout: Layout, gpu: GpuConfig) -> int:
    """BF16 weights, and the quantised copies that are kept of those that nobody has to gather.

    On one rank there are copies alone (see `lightning_modules.precision.quantised.KeepsCopies`).
    """
    keeps_copies = training.precision in RECIPES and RECIPES[training.precision].keeps_copies and gpu.has_fp8
    total = 0
    for unit in parameter_units(training.decoder):
        is_whole = unit.n_shards(layout) * layout.dp_replicate == 1
        total += unit.local_bytes(layout, training.gathered_bytes)
        if keeps_copies and is_whole:
            total += unit.fp8_bytes(layout)
            if layout.ep == 1:
                total -= training.gathered_bytes * sum(map(math.prod, unit.quantised_shapes))
    return total


def _moments(training: PlannedTraining, layout: Layout, gpu: GpuConfig, rehearsal: Rehearsal) -> Iterator[Moment]:
    """The fullest moment of every segment, and the optimizer's step."""
    static = static_bytes(training, layout, gpu)
    of_step = Counter(gradients=static["gradients"])
    # Those of the last step are let go before the next one begins.
    kept = static if training.accumulates else static - of_step
    left = 0
    own_layout, rehearsed = (
        local_bytes(training.decoder, ranks, training.gradient_bytes) for ranks in (layout, rehearsal.layout)
    )
    for stretch in whole_step(training.decoder, rehearsal):
        parts = stretch.peak
        own = parts.pop("gradients", 0) - stretch.segment.start["gradients"]
        parts += kept
        if stretch.phase == "backward" and _leaves_gradients(training):
            share = own_layout[stretch.block] / max(rehearsed[stretch.block], 1)
            parts["gradients"] += left + round(own * share)
            left += own_layout[stretch.block]
        yield Moment(f"{stretch.phase} {stretch.block}".strip(), parts)
    yield Moment("optimizer", static + Counter(temporary=_optimizer_temporaries(training, layout)))


def _leaves_gradients(training: PlannedTraining) -> bool:
    """Whether a backward pass leaves gradients beside those summed up so far: working weights have their own."""
    return not training.accumulates or training.has_working_weights


def _optimizer_temporaries(training: PlannedTraining, layout: Layout) -> int:
    """A fused AdamW needs none; with moments in BF16 torch has two of FP32 beside one parameter after another."""
    if training.moments == "fp32" or training.has_working_weights:
        return 0
    return 2 * FP32_BYTES * max(size for unit in parameter_units(training.decoder) for size in unit.local_sizes(layout))
