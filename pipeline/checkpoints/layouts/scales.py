"""FP8 weights in files that keep a weight's factors beside it: `X.weight` and `X.weight_scale_inv`, or `X.scale`."""

from collections.abc import Mapping
from dataclasses import replace

from lightning_modules.precision.emulation import E4M3
from pipeline.checkpoints.stored_tensor import DamagedCheckpointError, StoredTensor
from pipeline.checkpoints.writing.tensors import PlannedTensor, planned

WEIGHT = "weight"


def attach_scales(tensors: Mapping[str, StoredTensor], ending: str) -> dict[str, StoredTensor]:
    """Give every FP8 weight the factors that lie beside it.

    Args:
        tensors: as a file holds them.
        ending: of the factors' names, in place of `weight`.

    Returns:
        The tensors, without the factors that belong to one. Whether they fit is for `complete` to check.

    Raises:
        DamagedCheckpointError: when there are factors of a weight that is not in FP8.
    """
    found = dict(tensors)
    for name, stored in tensors.items():
        if stored.dtype == E4M3:
            found[name] = replace(stored, scale=found.pop(scale_name(name, ending), None))
        elif scale_name(name, ending) in tensors and stored.dtype.itemsize > 1:
            raise DamagedCheckpointError(
                f"{stored.file}: {name} is in {stored.dtype}, but {scale_name(name, ending)} is beside it, which only "
                "FP8 has; the files come from different exports: get all of one."
            )
    return found


def with_scales(name: str, stored: StoredTensor, ending: str) -> list[PlannedTensor]:
    """What is written of a tensor: itself, and the factors of its blocks where it has any."""
    if stored.scale is None:
        return [planned(name, stored)]
    return [planned(name, stored), planned(scale_name(name, ending), stored.scale)]


def scale_name(name: str, ending: str) -> str:
    """What the factors of a weight are called."""
    return name.removesuffix(WEIGHT) + ending
