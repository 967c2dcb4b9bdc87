"""Training on a single device."""

from typing import cast

import lightning as L  # noqa: N812
from lightning.pytorch.strategies import SingleDeviceStrategy
from lightning.pytorch.trainer.states import TrainerFn

from lightning_modules.host_memory import keep_freed_memory
from lightning_modules.parallel.strategy import HasDecoder
from lightning_modules.precision.plugins import has_working_weights
from lightning_modules.precision.working_weights import WorkingWeights


class OneDeviceStrategy(SingleDeviceStrategy):
    """Lightning's own, with working weights where the precision plugin computes with them."""

    def setup_environment(self) -> None:
        """Where tensors live in this process's own memory, let it keep what a step frees for the next one."""
        super().setup_environment()
        if self.root_device.type == "cpu":
            keep_freed_memory()

    def setup_optimizers(self, trainer: L.Trainer) -> None:
        """Build the working weights first: optimizers write them."""
        plugin = self.precision_plugin
        if trainer.state.fn == TrainerFn.FITTING and has_working_weights(plugin, self.root_device):
            module = cast(HasDecoder, self.lightning_module)
            module.working_weights = WorkingWeights(module.decoder, plugin.convert_module)  # type: ignore[arg-type]
        super().setup_optimizers(trainer)
