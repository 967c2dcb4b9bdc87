"""An exponential moving average of the parameters (arXiv 2412.19437, section 3.2.3)."""

from typing import Any

import lightning as L  # noqa: N812
import torch

from lightning_modules.language_model import LanguageModel
from lightning_modules.model.sharded import local


class ParameterAverage(L.Callback):
    """Averages the parameters over optimizer steps: average ← decay · average + (1 - decay) · parameter.

    The average starts where training starts. Of a sharded parameter every rank averages its own shard. It is the
    LanguageModel's `parameter_average`, FP32 as the parameters are, and every checkpoint holds it.

    Args:
        decay: how much of the average stays at every step.
        on_cpu: keep it in the CPU's memory, as the paper does, and copy the parameters there at every step; else it
            lies beside them, and takes as much memory as they do.
    """

    def __init__(self, decay: float, on_cpu: bool = False) -> None:
        self.decay = decay
        self.on_cpu = on_cpu
        self._step = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin with the parameters as they are, unless a checkpoint brought an average, wherever that lies."""
        assert isinstance(pl_module, LanguageModel)
        self._step = trainer.global_step
        average = pl_module.parameter_average
        for name, parameter in pl_module.decoder.named_parameters():
            begun = average[name] if name in average else parameter.detach().clone()
            # A DTensor on the CPU though its mesh is not: nothing will be communicated for it.
            average[name] = begun.to("cpu" if self.on_cpu else local(parameter).device, torch.float32)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take the parameters in, once an optimizer step has changed them."""
        assert isinstance(pl_module, LanguageModel)
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        if not pl_module.step_skipped:
            self._take_in(pl_module)

    @torch.no_grad()
    def _take_in(self, model: LanguageModel) -> None:
        parameters = [local(parameter) for parameter in model.decoder.parameters()]
        averages = [local(model.parameter_average[name]) for name, _ in model.decoder.named_parameters()]
        if not self.on_cpu:
            torch._foreach_lerp_(averages, parameters, 1 - self.decay)
            return
        # One after the other: a copy of all would take as much memory again.
        for average, parameter in zip(averages, parameters, strict=True):
            average.lerp_(parameter.to(average.device), 1 - self.decay)
