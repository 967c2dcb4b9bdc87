"""First weights that do not depend on how a decoder is spread over ranks."""

import hashlib

import torch
from torch import Tensor

# A CPU generator takes no more of a seed than 32 bits.
N_SEEDS = 2**32


@torch.no_grad()
def draw_normal(parameter: Tensor, std: float, seed: int, name: str, by_expert: bool) -> None:
    """Fill `parameter` from N(0, std²) with numbers keyed by (seed, name) and, in a stack, by the expert's index.

    A DTensor gets its own part of what a single process would draw. That part is cut from the whole matrix, so nothing
    has to be sent, and at most one whole parameter, or one expert's matrix, is in memory beside it.

    Args:
        parameter: what to fill; its first dimension counts experts with `by_expert`.
        std: standard deviation.
        seed: of the whole decoder.
        name: of the parameter within it.
        by_expert: draw every expert's matrix by itself.
    """
    local, part = local_part(parameter)
    if local.numel() == 0:
        return
    if not by_expert:
        local.copy_(_draw(parameter.shape, std, seed, name)[part])
        return
    for place, expert in enumerate(range(part[0].start, part[0].stop)):
        local[place].copy_(_draw(parameter.shape[1:], std, seed, name, expert)[part[1:]])


def local_part(parameter: Tensor) -> tuple[Tensor, tuple[slice, ...]]:
    """What lies here of `parameter`, and which part of the whole that is; all of it unless it is a DTensor."""
    to_local = getattr(parameter, "to_local", None)
    if to_local is None:
        return parameter, tuple(slice(0, size) for size in parameter.shape)
    # Costs a second, which only those who have a DTensor need to spend.
    from torch.distributed.tensor import DTensor
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    assert isinstance(parameter, DTensor)
    sizes, starts = compute_local_shape_and_global_offset(parameter.shape, parameter.device_mesh, parameter.placements)
    return to_local(), tuple(slice(start, start + size) for start, size in zip(starts, sizes, strict=True))


def _draw(shape: torch.Size, std: float, seed: int, name: str, expert: int = 0) -> Tensor:
    digest = int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:8])
    generator = torch.Generator().manual_seed((digest + expert) % N_SEEDS)
    return torch.empty(shape, dtype=torch.float32, device="cpu").normal_(0.0, std, generator=generator)
