"""Weights as an export in FP8 (`conversion.dtype=fp8`) has them."""

import torch

from lightning_modules.model.block_scaled import keep_in_fp8
from lightning_modules.model.counting import FP8_COMPONENTS, component_parameters
from lightning_modules.model.decoder import Decoder
from lightning_modules.precision.emulation import quantise_128x128


@torch.no_grad()
def keep_weights_in_fp8(decoder: Decoder) -> None:
    """Let a decoder in BF16, which `fits_blocks`, keep in FP8 what such an export does."""
    for component, name, parameter in list(component_parameters(decoder)):
        if component in FP8_COMPONENTS and parameter.ndim > 1:
            module, _, attribute = name.rpartition(".")
            quantised = quantise_128x128(parameter)
            keep_in_fp8(decoder.get_submodule(module), attribute, quantised.values, quantised.scales)
