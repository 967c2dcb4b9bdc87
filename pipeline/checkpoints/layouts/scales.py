"""FP8 weights in files that keep a weight's factors beside it: `X.weight` and `X.weight_scale_inv`, or `X.scale`."""

from collections.abc import Mapping
from dataclasses import replace

import torch

from lightning_modules.precision.emulation import BLOCK, E4M3
from pipeline.checkpoints.stored import DamagedCheckpointError, StoredTensor
from pipeline.checkpoints.writing.tensors import PlannedTensor, planned

WEIGHT = "weight"


def attach_scales(tensors: Mapping[str, StoredTensor], ending: str) -> dict[str, StoredTensor]:
    """Give every FP8 weight the factors that lie beside it.

    Args:
        tensors: as a file holds them.
        ending: of the factors' names, in place of `weight`.

    Returns:
        The tensors, without the factors that belong to one.

    Raises:
        DamagedCheckpointError: when an FP8 tensor has no factors, or they do not fit it.
    """
    found = dict(tensors)
    for name, stored in tensors.items():
        if stored.dtype == E4M3:
            scale = found.pop(scale_name(name, ending), None)
            _check_scale(name, stored, scale, ending)
            found[name] = replace(stored, scale=scale)
    return found


def with_scales(name: str, stored: StoredTensor, ending: str) -> list[PlannedTensor]:
    """What is written of a tensor: itself, and the factors of its blocks where it has any."""
    if stored.scale is None:
        return [planned(name, stored)]
    return [planned(name, stored), planned(scale_name(name, ending), stored.scale)]


def scale_name(name: str, ending: str) -> str:
    """What the factors of a weight are called."""
    return name.removesuffix(WEIGHT) + ending


def _check_scale(name: str, stored: StoredTensor, scale: StoredTensor | None, ending: str) -> None:
    if scale is None:
        raise DamagedCheckpointError(
            f"{stored.file}: {name} is FP8, but {scale_name(name, ending)} is absent, without which its numbers mean "
            "nothing; fetch the checkpoint again."
        )
    blocks = tuple(-(-side // BLOCK) for side in stored.shape)
    if scale.shape != blocks or scale.dtype != torch.float32 or len(blocks) != 2:
        raise DamagedCheckpointError(
            f"{scale.file}: {scale_name(name, ending)} is {list(scale.shape)} of {scale.dtype}, but {name} "
            f"{list(stored.shape)} has {list(blocks)} blocks of {BLOCK} × {BLOCK} with FP32 factors."
        )
