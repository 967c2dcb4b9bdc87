"""torchao's FP8 linear layers, made to choose between kernels and emulation by the device they find themselves on.

Import this module only where torchao is installed.
"""

from collections.abc import Collection
from dataclasses import replace

import torch
from torch import Tensor, nn
from torchao.float8 import Float8LinearConfig, convert_to_float8_training
from torchao.float8.float8_linear import Float8Linear
from torchao.float8.float8_training_tensor import LinearMMConfig

from lightning_modules.precision.autocast import as_autocast
from lightning_modules.precision.scaled_products import runs_on_scaled_products


class DeviceAwareFloat8Linear(Float8Linear):
    """A torchao layer that emulates its products where its device has none for them.

    Autocast is off inside: it would round the operands of an emulated product once more.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., K] to [..., N], in the type autocast asks for, or else that of `x`."""
        emulates = not runs_on_scaled_products(self.weight.shape, x.device)
        if emulates != self.linear_mm_config.output.emulate:
            self._set_emulation(emulates)
        x = as_autocast(x)
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x)

    @torch.compiler.disable
    def _set_emulation(self, emulates: bool) -> None:
        products = (product._replace(emulate=emulates) for product in self.linear_mm_config)
        self.linear_mm_config: LinearMMConfig = LinearMMConfig(*products)


def convert_linears(model: nn.Module, recipe: str, names: Collection[str]) -> None:
    """Replace the linear layers called `names` by FP8 ones of torchao's `recipe`; parameters and their names stay."""
    convert_to_float8_training(
        model,
        # Any number of tokens: a product over them pads to what the hardware asks for.
        config=replace(Float8LinearConfig.from_recipe_name(recipe), pad_inner_dim=True),
        module_filter_fn=lambda module, name: name in names,
    )
    for name in names:
        model.get_submodule(name).__class__ = DeviceAwareFloat8Linear
