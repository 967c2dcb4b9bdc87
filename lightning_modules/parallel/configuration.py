"""How a training is spread over ranks. Light: needs no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

DISPATCH_KINDS = ("auto", "all_gather", "all_to_all", "deep_ep")


@dataclass(frozen=True)
class ParallelConfig:
    """Sizes of the mesh, and how tokens travel to their experts.

    Attributes:
        dp_replicate: copies of the whole sharded model, which exchange gradients alone (HSDP); 1: none.
        dp_shard: ranks that share one set of experts' weights; null: all that `dp_replicate`, `cp` and `ep` leave.
        ep: ranks that the experts of a layer are spread over.
        cp: ranks that every window is spread over (context parallelism); they share weights as those of `dp_shard` do.
        nodes: machines.
        gpus_per_node: processes on each; null: what torchrun or SLURM started or, started alone, every GPU, and one
            process without GPUs.
        dispatch: `auto` takes all-gather up to as many ranks as a token has experts, beyond them DeepEP where it runs,
            else all-to-all; the others are taken as named.
        reshard_after_forward: gather a block's parameters anew for its backward pass; false keeps those of all blocks
            for it: less traffic, more memory, which the planner does not count.
        reduce_every_micro_batch: where micro-batches are accumulated, sum each one's gradients over ranks, so that what
            is kept is sharded; false sums them over ranks once a step, and keeps them whole and in FP32 until then:
            less traffic, more memory.
        rank_late_seconds: a rank that the others have waited for so long is named.
        rank_lost_seconds: one that they have waited for so long ends the training.
    """

    LARGEST: ClassVar[Mapping[str, float]] = {
        "dp_replicate": 10**6, "dp_shard": 10**6, "ep": 10**6, "cp": 10**6, "nodes": 10**6, "gpus_per_node": 1024,
        "rank_late_seconds": 10**7, "rank_lost_seconds": 10**7,
    }  # fmt: skip

    dp_replicate: int = 1
    dp_shard: int | None = None
    ep: int = 1
    cp: int = 1
    nodes: int = 1
    gpus_per_node: int | None = None
    dispatch: str = "auto"
    reshard_after_forward: bool = True
    reduce_every_micro_batch: bool = False
    rank_late_seconds: float = 60.0
    rank_lost_seconds: float = 900.0

    def __post_init__(self) -> None:
        for name in ("dp_replicate", "dp_shard", "ep", "cp", "nodes", "gpus_per_node"):
            size = getattr(self, name)
            if size is not None and size < 1:
                raise ValueError(f"strategy.{name} is {size}; it must be at least 1.")
        if not 0 < self.rank_late_seconds <= self.rank_lost_seconds:
            raise ValueError(
                f"strategy.rank_late_seconds is {self.rank_late_seconds} and strategy.rank_lost_seconds "
                f"{self.rank_lost_seconds}; they must be positive, and the first not above the second."
            )
        if self.dispatch not in DISPATCH_KINDS:
            raise ValueError(f"strategy.dispatch is '{self.dispatch}'; choose {', '.join(DISPATCH_KINDS)}.")

    def reader(self, rank: int) -> int:
        """Which of the readers of batches `rank` is: ranks that share windows read the same ones, and count as one."""
        return rank // (self.cp * self.ep) * self.ep + rank % self.ep

    def check_length(self, sequence_length: int) -> None:
        """Make sure that windows can be shared.

        Raises:
            ValueError: naming what does not divide.
        """
        n_runs = 2 * self.cp
        if self.cp > 1 and sequence_length % n_runs:
            raise ValueError(
                f"trainer.sequence_length ({sequence_length}) does not divide over 2 × strategy.cp ({self.cp}) = "
                f"{n_runs}: every rank takes a run of each window from its front, and one from its end; make it a "
                f"multiple ({-(-sequence_length // n_runs) * n_runs}), or lower strategy.cp."
            )


class MeshSizes(NamedTuple):
    """Sizes of the mesh; neighbours lie in `ep`."""

    dp_replicate: int
    dp_shard: int
    cp: int
    ep: int


def gathers_tokens(dispatch: str, ep: int, n_chosen: int) -> bool:
    """Whether all tokens are gathered: where that moves no more than an exchange of rows to `n_chosen` experts each."""
    return dispatch == "all_gather" or (dispatch == "auto" and ep <= n_chosen)


def can_record(n_ranks: int, are_alike: bool, scales_loss: bool) -> bool:
    """Whether steps can be one launch, as far as settings tell; the decoder may still have to wait for the host.

    Args:
        n_ranks: of the training.
        are_alike: whether all micro-batches are summed over ranks; those that are not would be recordings of their own.
        scales_loss: by a number of the host's, as FP16 has it.
    """
    return not scales_loss and (n_ranks == 1 or are_alike)


def mesh_sizes(config: ParallelConfig, world_size: int) -> MeshSizes:
    """The mesh's sizes, which multiply to `world_size`.

    Raises:
        ValueError: when they cannot; the message says which numbers do not divide.
    """
    replicas = f"strategy.dp_replicate ({config.dp_replicate})"
    # Named where it is more than one alone: most trainings share no windows.
    within = (f"strategy.cp ({config.cp}) × " if config.cp > 1 else "") + f"strategy.ep ({config.ep})"
    fixed = config.dp_replicate * config.cp * config.ep
    if config.dp_shard is None:
        if world_size % fixed:
            raise ValueError(
                f"{replicas} × {within} = {fixed} does not divide the {world_size} ranks; change one of them, or start "
                f"a multiple of {fixed} ranks."
            )
        return MeshSizes(config.dp_replicate, world_size // fixed, config.cp, config.ep)
    if fixed * config.dp_shard != world_size:
        raise ValueError(
            f"{replicas} × strategy.dp_shard ({config.dp_shard}) × {within} = {fixed * config.dp_shard}, but there are "
            f"{world_size} ranks; make them multiply to that, or set strategy.dp_shard to null."
        )
    return MeshSizes(config.dp_replicate, config.dp_shard, config.cp, config.ep)
