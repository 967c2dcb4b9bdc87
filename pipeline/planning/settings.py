"""What is planned: a training, the GPU it shall run on, and a layout of its ranks."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from lightning_modules.configuration import MOMENTS, OPTIMIZERS, n_micro_batches
from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.model.objective import ObjectiveConfig
from lightning_modules.parallel.configuration import MeshSizes, ParallelConfig, can_record, gathers_tokens, mesh_sizes
from lightning_modules.precision.kinds import PRECISIONS

ATTENTION_KERNELS = ("cudnn", "efficient", "cpu")


@dataclass(frozen=True)
class GpuConfig:
    """A kind of GPU, as conf/gpu/ names it.

    Attributes:
        name: what it is called.
        memory_gib: all that its driver offers, in GiB.
        attention: which of torch's attention kernels runs on it for this decoder's heads; they keep different things.
        has_fp8: whether FP8 recipes run on kernels there; elsewhere they are emulated.
        context_gib: what CUDA, NCCL and loaded kernels take, outside torch's allocator.
        fragmentation: share of the allocator's peak that lies in blocks it cannot hand out again.
    """

    LARGEST: ClassVar[Mapping[str, float]] = {"memory_gib": 10**6}

    name: str
    memory_gib: float
    attention: str = "cudnn"
    has_fp8: bool = True
    context_gib: float = 2.0
    fragmentation: float = 0.05

    def __post_init__(self) -> None:
        if self.memory_gib <= 0:
            raise ValueError(f"gpu.memory_gib is {self.memory_gib}; it must be positive.")
        if self.attention not in ATTENTION_KERNELS:
            raise ValueError(f"gpu.attention is '{self.attention}'; choose one of {', '.join(ATTENTION_KERNELS)}.")
        if not 0 <= self.context_gib < self.memory_gib:
            raise ValueError(f"gpu.context_gib is {self.context_gib}; it must lie between 0 and gpu.memory_gib.")
        if not 0 <= self.fragmentation < 1:
            raise ValueError(f"gpu.fragmentation is {self.fragmentation}; it is a share, from 0 up to 1.")

    @property
    def memory_bytes(self) -> int:
        """All its memory, in bytes."""
        return round(self.memory_gib * 2**30)


@dataclass(frozen=True)
class PlannedTraining:
    """What decides how much memory one rank's step takes, beside the layout.

    Attributes:
        decoder: the architecture.
        objective: weights of the losses; one of zero computes nothing.
        precision: one of `precision.kind`.
        accelerator: `gpu` or `cpu`.
        optimizer: one of `optimizer.kind`.
        moments: type of its moments, one of `optimizer.moments`.
        batch_size: sequences of a rank's micro-batch.
        sequence_length: tokens of each.
        accumulate_grad_batches: micro-batches a step.
        global_batch: windows a step over all ranks, from which the former follows (see `over`); None: it is given.
        attend_across_documents: whether tokens see the documents packed before theirs: without a mask, attention
            has none to keep.
        recompute: what is dropped and computed again, one of RECOMPUTE_KINDS.
        averages_beside: whether a running mean of the parameters lies beside them.
        dispatch: how tokens travel to their experts, `strategy.dispatch`.
        reduce_every_micro_batch: whether accumulated gradients are sharded, `strategy.reduce_every_micro_batch`.
        records_steps: whether a GPU launches a micro-batch whole where it can, `trainer.cuda_graph`.
    """

    decoder: DecoderConfig
    objective: ObjectiveConfig
    precision: str
    accelerator: str = "gpu"
    optimizer: str = "adamw"
    moments: str = "fp32"
    batch_size: int = 1
    sequence_length: int = 4096
    accumulate_grad_batches: int = 1
    global_batch: int | None = None
    attend_across_documents: bool = False
    recompute: str = "none"
    averages_beside: bool = False
    dispatch: str = "auto"
    reduce_every_micro_batch: bool = False
    records_steps: bool = True

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision.kind is '{self.precision}'; choose one of {', '.join(PRECISIONS)}.")
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"optimizer.kind is '{self.optimizer}'; choose one of {', '.join(OPTIMIZERS)}.")
        if self.moments not in MOMENTS:
            raise ValueError(f"optimizer.moments is '{self.moments}'; choose one of {', '.join(MOMENTS)}.")
        for name in ("batch_size", "sequence_length", "accumulate_grad_batches"):
            if getattr(self, name) < 1:
                raise ValueError(f"trainer.{name} is {getattr(self, name)}; it must be at least 1.")
        if self.global_batch is not None and self.global_batch < 1:
            raise ValueError(f"trainer.global_batch is {self.global_batch}; it must be at least 1, or null.")

    def over(self, layout: "Layout") -> "PlannedTraining":
        """The training with as many micro-batches a step as `global_batch` takes of a layout's ranks.

        Raises:
            ValueError: when none do.
        """
        if self.global_batch is None:
            return self
        n_readers = layout.world_size // layout.cp
        return replace(self, accumulate_grad_batches=n_micro_batches(self.global_batch, n_readers, self.batch_size))

    @property
    def n_tokens(self) -> int:
        """Positions of one micro-batch, of all ranks that share its windows."""
        return self.batch_size * self.sequence_length

    @property
    def has_working_weights(self) -> bool:
        """Whether weights in BF16 compute beside FP32 masters (see `lightning_modules.precision.working_weights`)."""
        return self.accelerator == "gpu" and self.precision not in ("fp32", "fp16")

    def gathers_tokens(self, layout: "Layout") -> bool:
        """Whether ranks gather all tokens, instead of exchanging rows."""
        return layout.ep > 1 and gathers_tokens(self.dispatch, layout.ep, self.decoder.num_segments_per_tok)

    def is_recorded(self, layout: "Layout") -> bool:
        """Whether steps are one launch, unless the decoder waits for the host."""
        can = can_record(layout.world_size, not self.keeps_whole_gradients, scales_loss=self.precision == "fp16")
        return self.records_steps and self.accelerator == "gpu" and can

    @property
    def accumulates(self) -> bool:
        """Whether a step has several micro-batches."""
        return self.accumulate_grad_batches > 1

    @property
    def keeps_whole_gradients(self) -> bool:
        """Whether each rank sums up its own gradients of all it gathers until the step's last micro-batch."""
        return self.accumulates and not self.reduce_every_micro_batch

    @property
    def recomputes_blocks(self) -> bool:
        """Whether a backward pass runs every block forwards once more."""
        return self.recompute.startswith("blocks")

    @property
    def gathered_bytes(self) -> int:
        """Of each parameter as it computes, and of each activation; routers compute in FP32 always."""
        return 4 if self.precision == "fp32" else 2

    @property
    def gradient_bytes(self) -> int:
        """Of each number of a gradient as a backward pass leaves it; those of routers are FP32 always."""
        return 2 if self.has_working_weights else 4


@dataclass(frozen=True)
class Layout:
    """The mesh's sizes, and how many of its ranks share a machine."""

    dp_replicate: int
    dp_shard: int
    ep: int
    gpus_per_node: int
    cp: int = 1

    @classmethod
    def of(cls, config: ParallelConfig) -> "Layout":
        """The layout that a strategy with `nodes` and `gpus_per_node` has.

        Raises:
            ValueError: when the sizes do not multiply to the number of ranks.
        """
        gpus_per_node = config.gpus_per_node or 1
        return cls.of_mesh(mesh_sizes(config, config.nodes * gpus_per_node), gpus_per_node)

    @classmethod
    def of_mesh(cls, sizes: MeshSizes, gpus_per_node: int) -> "Layout":
        """The layout of a mesh."""
        return cls(sizes.dp_replicate, sizes.dp_shard, sizes.ep, gpus_per_node, sizes.cp)

    @property
    def world_size(self) -> int:
        """All ranks."""
        return self.dp_replicate * self.dp_shard * self.cp * self.ep

    @property
    def n_dense_shards(self) -> int:
        """Ranks that a dense parameter is split over."""
        return self.n_expert_shards * self.ep

    @property
    def n_expert_shards(self) -> int:
        """Ranks that an expert's matrices are split over."""
        return self.dp_shard * self.cp

    def config(self) -> ParallelConfig:
        """The strategy's settings for this layout."""
        return ParallelConfig(self.dp_replicate, self.dp_shard, self.ep, self.cp, dispatch="all_to_all")
