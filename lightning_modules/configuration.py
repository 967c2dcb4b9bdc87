"""How a training goes: its portions, its optimizer, its answers to anomalies. Light: needs no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from lightning_modules.model.recompute_kinds import RECOMPUTE_KINDS

ACCELERATORS = ("cpu", "gpu")
NONFINITE_ANSWERS = ("stop", "skip")
SPIKE_ANSWERS = ("ignore", "stop", "skip")
OPTIMIZERS = ("adamw", "muon")
MOMENTS = ("fp32", "bf16")
# BF16 has 8 significant bits: a mean that moves by less than 2⁻⁸ of itself a step stays where it is.
LARGEST_BF16_BETA = 1 - 2**-7


def check_moments(moments: str, betas: tuple[float, float]) -> None:
    """Raise ValueError unless AdamW can keep its moments in the type `moments` names."""
    if moments not in MOMENTS:
        raise ValueError(f"optimizer.moments is '{moments}'; choose one of {', '.join(MOMENTS)}.")
    if moments == "bf16" and max(betas) > LARGEST_BF16_BETA:
        raise ValueError(
            f"optimizer.moments is 'bf16' with optimizer.betas {tuple(betas)}: moments that move so slowly would round"
            f" to where they are. Keep both betas at or below {LARGEST_BF16_BETA}, or use optimizer.moments=fp32."
        )


def n_micro_batches(global_batch: int, n_ranks: int, batch_size: int) -> int:
    """Micro-batches of `batch_size` windows on each of `n_ranks` ranks that make up a step of `global_batch` windows.

    Raises:
        ValueError: when none do.
    """
    at_once = n_ranks * batch_size
    if global_batch % at_once:
        raise ValueError(
            f"trainer.global_batch is {global_batch}, which is no multiple of {n_ranks} ranks × "
            f"trainer.batch_size {batch_size} = {at_once}; change one of them, or have ranks share windows "
            "(strategy.cp)."
        )
    return global_batch // at_once


@dataclass(frozen=True)
class AnomalyConfig:
    """What is done about an optimizer step whose loss or gradient norm is not finite, or leaps.

    A spike is a loss or gradient norm more than `spike_deviations` standard deviations above the mean of the last
    `spike_window` steps; half as many have to be known first. (This is how OLMo 2's training skips steps, arXiv
    2501.00656; its values are the defaults.) After `max_consecutive_skips` skips in a row training stops, and after
    `max_consecutive_overflows` steps in a row whose gradients overflowed under FP16, though each halved the loss scale.
    """

    LARGEST: ClassVar[Mapping[str, float]] = {"spike_window": 10**6, "max_consecutive_overflows": 10**6}

    nonfinite: str = "stop"
    spike: str = "ignore"
    spike_deviations: float = 6.0
    spike_window: int = 128
    max_consecutive_skips: int = 5
    max_consecutive_overflows: int = 20

    def __post_init__(self) -> None:
        for name, known in (("nonfinite", NONFINITE_ANSWERS), ("spike", SPIKE_ANSWERS)):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"trainer.anomalies.{name} is {getattr(self, name)!r}; choose one of {', '.join(known)}."
                )
        if self.spike_deviations <= 0:
            raise ValueError(f"trainer.anomalies.spike_deviations is {self.spike_deviations}; it must be positive.")
        if self.spike_window < 4:
            raise ValueError(f"trainer.anomalies.spike_window is {self.spike_window}; it must be at least 4.")
        for name in ("max_consecutive_skips", "max_consecutive_overflows"):
            if getattr(self, name) < 1:
                raise ValueError(f"trainer.anomalies.{name} is {getattr(self, name)}; it must be at least 1.")


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW (arXiv 2412.19437, section 4.2), or Muon (arXiv 2502.16982) for hidden matrices and AdamW for the rest.

    `moments` is the type of AdamW's two, fp32 or bf16 (arXiv 2412.19437, section 3.3.2), and of Muon's `momentum`.
    """

    lr: float
    betas: tuple[float, float]
    weight_decay: float
    eps: float
    moments: str = "fp32"
    kind: str = "adamw"
    momentum: float = 0.95

    def __post_init__(self) -> None:
        if self.kind not in OPTIMIZERS:
            raise ValueError(f"optimizer.kind is '{self.kind}'; choose one of {', '.join(OPTIMIZERS)}.")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"optimizer.momentum is {self.momentum}; it must lie from 0 up to, not including, 1.")
        if self.lr <= 0 or self.eps <= 0 or self.weight_decay < 0:
            raise ValueError("optimizer.lr and optimizer.eps must be positive, optimizer.weight_decay not negative.")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"optimizer.betas is {self.betas}; it takes two numbers from 0 up to, not including, 1.")
        check_moments(self.moments, self.betas)


@dataclass(frozen=True)
class TrainerConfig:
    """How long and in what portions training goes.

    A step takes `batch_size` windows a rank, or for ranks that share windows, `accumulate_grad_batches` times. With
    `global_batch`, windows of a step over all ranks, the latter follows from the number of ranks: the training stays
    the same on any (null: it is given).

    `recompute` says what is dropped after the forward pass and computed again for the backward pass, with the same
    results: `none`; `activations`, which are norms, up-projections of attention and SwiGLU; `blocks`, all but each
    block's input; `blocks_offloaded`, not even these, which wait in the host's memory. `compile` compiles every block
    (null: on a GPU, where training is long enough to repay it); `cuda_graph` lets a GPU launch a micro-batch whole. Of
    the checkpoints to go on from, the last `keep_last` stay. `ema_decay` keeps a running mean of the parameters (null:
    none), beside them or, with `ema_offload`, in the CPU's memory. `start_from` is a training checkpoint whose weights
    are the first ones (null: random ones). `anomalies` says what is done about a step whose loss or gradient is not to
    be trusted.
    """

    LARGEST: ClassVar[Mapping[str, float]] = {
        "max_steps": 10**8, "batch_size": 2**16, "sequence_length": 2**24, "accumulate_grad_batches": 2**20,
        "global_batch": 2**30, "keep_last": 10_000,
    }  # fmt: skip

    accelerator: str
    max_steps: int
    batch_size: int
    sequence_length: int
    accumulate_grad_batches: int
    gradient_clip_val: float | None
    val_every_steps: int
    log_every_steps: int
    checkpoint_every_steps: int
    attend_across_documents: bool
    recompute: str = "none"
    compile: bool | None = False
    cuda_graph: bool = True
    global_batch: int | None = None
    keep_last: int = 2
    ema_decay: float | None = None
    ema_offload: bool = False
    start_from: str | None = None
    anomalies: AnomalyConfig = AnomalyConfig()

    def __post_init__(self) -> None:
        if self.accelerator not in ACCELERATORS:
            raise ValueError(f"trainer.accelerator is '{self.accelerator}'; choose {' or '.join(ACCELERATORS)}.")
        if self.recompute not in RECOMPUTE_KINDS:
            raise ValueError(f"trainer.recompute is '{self.recompute}'; choose one of {', '.join(RECOMPUTE_KINDS)}.")
        for name in (
            "max_steps",
            "batch_size",
            "sequence_length",
            "accumulate_grad_batches",
            "val_every_steps",
            "log_every_steps",
            "checkpoint_every_steps",
            "keep_last",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"trainer.{name} is {getattr(self, name)}; it must be at least 1.")
        if self.global_batch is not None and self.global_batch < 1:
            raise ValueError(f"trainer.global_batch is {self.global_batch}; it must be at least 1, or null.")
        if self.gradient_clip_val is not None and self.gradient_clip_val <= 0:
            raise ValueError("trainer.gradient_clip_val must be positive, or null for no clipping.")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ValueError(
                f"trainer.ema_decay is {self.ema_decay}; it must lie between 0 and 1, or be null for none."
            )

    def n_accumulated(self, n_ranks: int) -> int:
        """Micro-batches of a step on each of so many ranks.

        Raises:
            ValueError: when they cannot add up to `global_batch`.
        """
        if self.global_batch is None:
            return self.accumulate_grad_batches
        return n_micro_batches(self.global_batch, n_ranks, self.batch_size)

    @property
    def n_batches(self) -> int:
        """Micro-batches of the whole training, per rank."""
        return self.max_steps * self.accumulate_grad_batches
