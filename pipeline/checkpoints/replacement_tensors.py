"""Tensors that take the places of those a checkpoint lacks."""

from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from lightning_modules.model.initialisation import draw_normal
from pipeline.checkpoints.stored_tensor import StoredTensor


def zeros(shape: tuple[int, ...], dtype: torch.dtype, path: Path) -> StoredTensor:
    """A tensor of zeros, as if it lay at `path`."""
    return StoredTensor(shape, dtype, path, partial(torch.zeros, shape, dtype=dtype))


def random_weight(
    name: str, shape: tuple[int, ...], dtype: torch.dtype, std: float, seed: int, path: Path
) -> StoredTensor:
    """A weight before any training, as if it lay at `path`: ones of a norm, else N(0, std²) keyed by seed and name."""
    if name.endswith("norm.weight"):
        return StoredTensor(shape, dtype, path, partial(torch.ones, shape, dtype=dtype))
    return StoredTensor(shape, dtype, path, partial(_drawn, name, shape, dtype, std, seed))


def _drawn(name: str, shape: tuple[int, ...], dtype: torch.dtype, std: float, seed: int) -> Tensor:
    tensor = torch.empty(shape)
    draw_normal(tensor, std, seed, name, by_expert=False)
    return tensor.to(dtype)
