"""All layouts of a number of ranks, what each would need, and the one to take."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.model.recompute_kinds import RECOMPUTE_KINDS
from pipeline.planning.communication import StepTraffic, step_traffic
from pipeline.planning.memory import GIB, StepMemory, static_bytes, step_memory
from pipeline.planning.rehearsals import Rehearsals, expert_sides
from pipeline.planning.settings import GpuConfig, Layout, PlannedTraining
from pipeline.planning.shards import parameter_units

RULE = (
    "this one fits, has no more ranks share a window and recomputes no more than any has to, and of those that do it "
    "has a rank receive the fewest bytes from other machines, then the fewest bytes in all, then takes the least memory"
)


@dataclass(frozen=True)
class Candidate:
    """One layout, and how it would be run.

    Attributes:
        layout: the ranks.
        accumulate_grad_batches: micro-batches a step.
        recompute: what is computed again, one of RECOMPUTE_KINDS.
        reduce_every_micro_batch: whether accumulated gradients are sharded.
        traffic: what a rank receives.
        memory: None where parameters alone do not fit, and nothing more was looked at.
        total: bytes it takes of a GPU, at least.
        fits: whether a GPU has them.
    """

    layout: Layout
    accumulate_grad_batches: int
    recompute: str
    reduce_every_micro_batch: bool
    traffic: StepTraffic
    memory: StepMemory | None
    total: int
    fits: bool

    @property
    def cost(self) -> tuple[bool, bool, int, int, int]:
        """What RULE sorts by; of those that do not fit, a bound says less than what was counted."""
        if not self.fits:
            return True, self.memory is None, self.total, 0, 0
        return False, False, self.traffic.total.inter_node, self.traffic.total.total, self.total


def possible_layouts(config: DecoderConfig, n_nodes: int, gpus_per_node: int, cp: int = 1) -> Iterator[Layout]:
    """Every layout whose sizes divide; replicas are made of whole machines, and `cp` ranks share windows."""
    readers = n_nodes * gpus_per_node // cp
    for replicate in _divisors(math.gcd(n_nodes, readers)):
        for ep in _divisors(readers // replicate):
            layout = Layout(replicate, readers // replicate // ep, ep, gpus_per_node, cp)
            divides = all(side % layout.n_expert_shards == 0 for side in expert_sides(config))
            if config.n_routed_segments % ep == 0 and divides:
                yield layout


def sharing_sizes(training: PlannedTraining, n_ranks: int, gpus_per_node: int, asked: int) -> list[int]:
    """Over how many ranks windows may be spread: as asked or, where a step's windows stand, over more of a machine.

    Raises:
        ValueError: when no number of them makes up a step.
    """
    if training.global_batch is None:
        return [asked]
    wanted, length = training.global_batch, training.sequence_length
    sizes = [
        cp
        for cp in _divisors(n_ranks)
        if asked <= cp <= max(asked, gpus_per_node)
        and (cp == 1 or length % (2 * cp) == 0)
        and wanted * cp % (n_ranks * training.batch_size) == 0
    ]
    if not sizes:
        raise ValueError(
            f"trainer.global_batch is {wanted}: {n_ranks} ranks do not make it up of micro-batches of "
            f"trainer.batch_size {training.batch_size}, however many of a machine share windows (strategy.cp, from "
            f"{asked} on); change one of them, nodes or gpus_per_node."
        )
    return sizes


def sweep(
    training: PlannedTraining, gpu: GpuConfig, layouts: list[Layout], rehearsals: Rehearsals, dispatch: str
) -> list[Candidate]:
    """Every layout, the best first: all that recompute as much as it takes for one to fit, or else all there is."""
    for kind in RECOMPUTE_KINDS:
        candidates = [
            _candidate(one, layout, gpu, rehearsals, dispatch)
            for layout in layouts
            for one in _economies(replace(training.over(layout), recompute=kind))
        ]
        candidates.sort(key=lambda candidate: candidate.cost)
        if candidates[0].fits:
            break
    return candidates


def _economies(training: PlannedTraining) -> Iterator[PlannedTraining]:
    """Where gradients are accumulated, whole ones beside sharded ones."""
    for reduces in (False, True) if training.accumulates else (False,):
        yield replace(training, reduce_every_micro_batch=reduces)


def _candidate(
    training: PlannedTraining, layout: Layout, gpu: GpuConfig, rehearsals: Rehearsals, dispatch: str
) -> Candidate:
    traffic = step_traffic(training, layout, dispatch, gpu.has_fp8)
    total, memory = least_bytes(training, layout, gpu), None
    if total <= gpu.memory_bytes:
        memory = step_memory(training, layout, gpu, rehearsals.of(training, layout))
        total = memory.total
    fits = total <= gpu.memory_bytes
    return Candidate(
        layout,
        training.accumulate_grad_batches,
        training.recompute,
        training.reduce_every_micro_batch,
        traffic,
        memory,
        total,
        fits,
    )


def least_bytes(training: PlannedTraining, layout: Layout, gpu: GpuConfig) -> int:
    """What a step cannot do without: all that stays, what lies outside blocks, and the largest block twice.

    A gathered block lies there as it came from the ranks and as parameters while it is unpacked.
    """
    number = training.gathered_bytes
    sizes: dict[str, int] = {}
    for unit in parameter_units(training.decoder):
        sizes[unit.block] = sizes.get(unit.block, 0) + unit.n_gathered(layout) * number
    outside = sizes.pop("", 0)
    copies = 2 if layout.n_dense_shards > 1 else 1
    return (
        static_bytes(training, layout, gpu).total()
        + outside
        + copies * max(sizes.values())
        + round(gpu.context_gib * GIB)
    )


def _divisors(number: int) -> list[int]:
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]
