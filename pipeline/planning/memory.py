"""What a step takes of a GPU's memory at its fullest, and what that is for."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from lightning_modules.model.configuration import DecoderConfig
from pipeline.planning.depth import kept_activations, whole_step
from pipeline.planning.rehearsal import Rehearsal
from pipeline.planning.settings import GpuConfig, Layout, PlannedTraining
from pipeline.planning.shards import n_local_parameters, parameter_units

GIB = 2**30
FP32_BYTES = 4
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
    """

    fullest: Moment
    activations: int
    fragmentation: int
    context: int

    @property
    def total(self) -> int:
        """All bytes of the GPU."""
        return self.fullest.total + self.fragmentation + self.context


def step_memory(training: PlannedTraining, layout: Layout, gpu: GpuConfig, rehearsal: Rehearsal) -> StepMemory:
    """Put a rehearsal of a few blocks together to a step of them all."""
    moments = list(_moments(training, layout, rehearsal))
    fullest = max(moments, key=lambda moment: moment.total)
    return StepMemory(
        fullest,
        activations=kept_activations(training.decoder, rehearsal),
        fragmentation=round(gpu.fragmentation * fullest.total),
        context=round(gpu.context_gib * GIB),
    )


def static_bytes(training: PlannedTraining, layout: Layout) -> Counter[str]:
    """Bytes that stay from step to step: FP32 parameters and gradients, the optimizer's moments, cuBLAS's workspaces.

    Where micro-batches are accumulated, each rank sums its own gradients of all it gathers, and reduces them once.
    """
    n_local = n_local_parameters(training.decoder, layout)
    n_gradients = n_local
    if training.accumulate_grad_batches > 1:
        n_gradients = sum(unit.n_gathered(layout) for unit in parameter_units(training.decoder))
    return Counter(
        parameters=n_local * FP32_BYTES,
        gradients=n_gradients * FP32_BYTES,
        optimizer=2 * n_local * MOMENT_BYTES[training.moments],
        workspaces=CUBLAS_WORKSPACES,
    )


def _moments(training: PlannedTraining, layout: Layout, rehearsal: Rehearsal) -> Iterator[Moment]:
    """The fullest moment of every segment, and the optimizer's step."""
    static = static_bytes(training, layout)
    reduced, local = 0, _local_bytes(training.decoder, layout)
    rehearsed = _local_bytes(training.decoder, rehearsal.layout)
    for stretch in whole_step(training.decoder, rehearsal):
        parts = stretch.peak
        own = parts.pop("gradients", 0) - stretch.segment.start["gradients"]
        parts += static
        if stretch.phase == "backward" and training.accumulate_grad_batches == 1:
            # Lightning lets the last step's gradients go between the forward and the backward pass.
            share = local.get(stretch.block, 0) / max(rehearsed.get(stretch.block, 0), 1)
            parts["gradients"] = reduced + round(own * share)
            reduced += local.get(stretch.block, 0)
        yield Moment(f"{stretch.phase} {stretch.block}".strip(), parts)
    yield Moment("optimizer", static + Counter(temporary=_optimizer_temporaries(training, layout)))


def _local_bytes(config: DecoderConfig, layout: Layout) -> Counter[str]:
    """Bytes of each block's FP32 gradients on rank 0."""
    sizes: Counter[str] = Counter()
    for unit in parameter_units(config):
        sizes[unit.block] += unit.n_local(layout) * FP32_BYTES
    return sizes


def _optimizer_temporaries(training: PlannedTraining, layout: Layout) -> int:
    """The fused AdamW needs none; with moments in BF16, one parameter after another has two of FP32 beside them."""
    if training.moments == "fp32":
        return 0
    return 2 * FP32_BYTES * max(size for unit in parameter_units(training.decoder) for size in unit.local_sizes(layout))
