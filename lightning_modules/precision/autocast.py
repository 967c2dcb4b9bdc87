"""Autocast for products that it knows nothing of: those outside torch's own."""

import torch
from torch import Tensor


def as_autocast(x: Tensor) -> Tensor:
    """`x` in the type autocast asks for, where it is on."""
    if torch.is_autocast_enabled(x.device.type):
        return x.to(torch.get_autocast_dtype(x.device.type))
    return x
