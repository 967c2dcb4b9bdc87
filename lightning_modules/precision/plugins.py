"""Lightning's precision plugins: one for every `precision.kind`, on one device and over sharded parameters.

BF16 and FP8 compute on a GPU with working weights in BF16 beside FP32 masters (`working_weights.py`). Elsewhere, on one
device, autocast computes in 16 bits over FP32 parameters; sharded, FSDP casts parameters before it gathers them, which
halves what travels, and reduces gradients in FP32. The parameters an optimizer sees are FP32 everywhere.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.plugins.precision import Precision
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.nn import Module
from torch.optim import Optimizer

from lightning_modules.precision.emulation import Quantised
from lightning_modules.precision.loss_scaling import LossScale
from lightning_modules.precision.quantised import quantise_rows
from lightning_modules.precision.recipes import RECIPES, convert_to_fp8, pays, report_conversion

PRECISIONS = ("fp32", "bf16", "fp16", *RECIPES)


class AutocastPrecision(Precision):
    """Autocast to `dtype` on the device the parameters are found on."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.device_type = "cpu"

    def connect(
        self, model: Module, optimizers: list[Optimizer], lr_schedulers: list[Any]
    ) -> tuple[Module, list[Optimizer], list[Any]]:
        """Learn the device, on which the strategy has just put `model`."""
        self.device_type = next(model.parameters()).device.type
        return super().connect(model, optimizers, lr_schedulers)

    @contextmanager
    def forward_context(self) -> Iterator[None]:
        """Autocast, without a cache of cast weights: one would hold a copy of all of them until the step ends."""
        if has_working_weights(self, torch.device(self.device_type)):
            yield
            return
        with torch.autocast(self.device_type, dtype=self.dtype, cache_enabled=False):
            yield


class ShardedPrecision(Precision):
    """What sharded parameters are gathered in.

    Inputs of sharded modules are not cast: rotary angles have to stay FP32.

    Attributes:
        fsdp_policy: what the strategy gives to every `fully_shard`.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.fsdp_policy = MixedPrecisionPolicy(
            param_dtype=None if dtype == torch.float32 else dtype,
            reduce_dtype=torch.float32,
            cast_forward_inputs=False,
        )


def working_policy(sums_again: bool) -> MixedPrecisionPolicy:
    """How working weights are sharded: gathered as they are, with gradients in BF16 that are summed over ranks at once.

    `sums_again`: over micro-batches or replicas as well, for which they are FP32.
    """
    return MixedPrecisionPolicy(reduce_dtype=torch.float32 if sums_again else None)


def has_working_weights(plugin: Any, device: torch.device) -> bool:
    """Whether a training by this precision plugin computes with BF16 copies of its weights on this device."""
    return device.type == "cuda" and getattr(plugin, "dtype", None) == torch.bfloat16


class LossScalingPrecision(Precision):
    """Scales the loss for the backward pass, and skips optimizer steps whose gradients overflowed."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__(dtype)  # type: ignore[call-arg]  # the class beside this one computes in `dtype`
        self.scaler = LossScale()

    def pre_backward(self, tensor: Tensor, module: LightningModule) -> Tensor:  # type: ignore[override]
        """Scale the loss."""
        return super().pre_backward(tensor * self.scaler.value, module)

    def optimizer_step(  # type: ignore[override]
        self, optimizer: Optimizer, model: LightningModule, closure: Callable[[], Any], **kwargs: Any
    ) -> Any:
        """Run the closure, unscale before anybody clips, and step if everything is finite."""
        result = closure()
        is_finite = self.scaler.unscale(optimizer)
        self._after_closure(model, optimizer)
        self.scaler.update(is_finite)
        if is_finite:
            optimizer.step(**kwargs)
        return result

    def state_dict(self) -> dict[str, Any]:
        """The factor, and how long it has gone without an overflow."""
        return {"value": self.scaler.value, "steps_without_overflow": self.scaler.steps_without_overflow}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with a saved factor."""
        self.scaler.value = state_dict["value"]
        self.scaler.steps_without_overflow = state_dict["steps_without_overflow"]


class Float8Precision(Precision):
    """Multiplies by one of RECIPES what the paper multiplies in FP8, and else computes in BF16.

    Attributes:
        kind: the recipe's name.
        takes: which modules it takes over.
    """

    kind: str
    takes: Callable[[Module], bool]

    def convert_module(self, module: Module) -> Module:
        """Take over `module`'s linear layers and experts; parameters keep their names, so any checkpoint fits."""
        convert_to_fp8(module, RECIPES[self.kind], self.takes)
        return module

    def connect(
        self, model: Module, optimizers: list[Optimizer], lr_schedulers: list[Any]
    ) -> tuple[Module, list[Optimizer], list[Any]]:
        """Say what stays BF16, and what has to be emulated on the device that `model` has been put on."""
        rank_zero_only(report_conversion)(model, self.kind, next(model.parameters()).device, self.takes)
        return super().connect(model, optimizers, lr_schedulers)


class AutocastFloat8Precision(Float8Precision, AutocastPrecision):
    """FP8 on one device: FP8 products take FP32 parameters as they are, all else is autocast to BF16."""

    def __init__(self, kind: str, takes: Callable[[Module], bool]) -> None:
        super().__init__(torch.bfloat16)
        self.kind = kind
        self.takes = takes


class ShardedFloat8Precision(Float8Precision, ShardedPrecision):
    """FP8 over sharded parameters, which are gathered in BF16 and quantised where they are used.

    Attributes:
        quantise_rows: how rows may be rounded on their way to other ranks' experts; None where they should not be.
    """

    def __init__(self, kind: str, takes: Callable[[Module], bool]) -> None:
        super().__init__(torch.bfloat16)
        self.kind = kind
        self.takes = takes
        self.quantise_rows: Callable[[Tensor], Quantised] | None = quantise_rows if kind == "fp8_deepseek" else None


class AutocastHalfPrecision(LossScalingPrecision, AutocastPrecision):
    """FP16 on one device."""


class ShardedHalfPrecision(LossScalingPrecision, ShardedPrecision):
    """FP16 over sharded parameters."""


def build_precision(kind: str, sharded: bool, takes: Callable[[Module], bool] = pays) -> Precision:
    """The plugin for `precision.kind`.

    Args:
        kind: one of PRECISIONS.
        sharded: whether the strategy shards parameters; the plugin then has an `fsdp_policy`.
        takes: what a recipe of FP8 takes over of all that it knows.

    Raises:
        ValueError: an unknown kind.
    """
    if kind in RECIPES:
        return ShardedFloat8Precision(kind, takes) if sharded else AutocastFloat8Precision(kind, takes)
    if kind == "fp16":
        return ShardedHalfPrecision(torch.float16) if sharded else AutocastHalfPrecision(torch.float16)
    if kind == "bf16":
        return ShardedPrecision(torch.bfloat16) if sharded else AutocastPrecision(torch.bfloat16)
    if kind == "fp32":
        return ShardedPrecision(torch.float32) if sharded else Precision()
    raise ValueError(f"precision.kind is '{kind}'; choose one of {', '.join(PRECISIONS)}.")
