"""An exponential moving average of the parameters, kept on the CPU (arXiv 2412.19437, section 3.2.3)."""

from typing import Any

import lightning as L  # noqa: N812
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from lightning_modules.language_model import LanguageModel


class ParameterAverage(L.Callback):
    """Averages the parameters over optimizer steps: average ← decay · average + (1 - decay) · parameter.

    The average starts where training starts, is FP32 whatever the parameters are, and takes no memory of the
    accelerator. Of a sharded parameter every rank averages its own shard. It is the LanguageModel's
    `parameter_average`, which every checkpoint holds.

    Args:
        decay: how much of the average stays at every step.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self._step = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin with the parameters as they are, unless a checkpoint brought an average."""
        assert isinstance(pl_module, LanguageModel)
        self._step = trainer.global_step
        if not pl_module.parameter_average:
            pl_module.parameter_average = {n: _on_cpu(p).clone() for n, p in pl_module.decoder.named_parameters()}

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take the parameters in, once an optimizer step has changed them."""
        assert isinstance(pl_module, LanguageModel)
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        if pl_module.step_skipped:
            return
        for name, parameter in pl_module.decoder.named_parameters():
            _local(pl_module.parameter_average[name]).lerp_(_local(_on_cpu(parameter)), 1 - self.decay)


def _on_cpu(parameter: Tensor) -> Tensor:
    return parameter.detach().to("cpu", torch.float32)


def _local(tensor: Tensor) -> Tensor:
    """This rank's shard. It lies on the CPU though the mesh may not: nothing must be communicated for it."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
