"""Weights of which each rank holds a part. DTensor itself would cost every import of a decoder another second."""

from torch import Tensor


def is_sharded(weight: Tensor) -> bool:
    """Whether it is a DTensor."""
    return hasattr(type(weight), "to_local")


def local(weight: Tensor) -> Tensor:
    """The part of a DTensor that lies here; anything else as it is."""
    # Asked of the class: of the tensor itself, torch.compile says that it has no such method.
    return weight.to_local() if hasattr(type(weight), "to_local") else weight  # type: ignore[attr-defined]


def whole(weight: Tensor) -> Tensor:
    """All of a DTensor, gathered; anything else as it is. Gradients are summed over ranks, and kept where parts lie."""
    if not hasattr(type(weight), "redistribute"):
        return weight
    from torch.distributed.tensor import Partial, Replicate

    n_dimensions = weight.device_mesh.ndim  # type: ignore[attr-defined]
    gathered = weight.redistribute(placements=[Replicate()] * n_dimensions)  # type: ignore[attr-defined]
    return gathered.to_local(grad_placements=[Partial()] * n_dimensions)
