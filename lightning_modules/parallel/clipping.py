"""The norm of gradients that lie on different meshes."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor


@torch.no_grad()
def clip_gradients(parameters: Iterable[Tensor], max_norm: float) -> Tensor:
    """Scale all gradients down to a total norm of at most `max_norm`, and return what it was.

    As `torch.nn.utils.clip_grad_norm_`, for parameters of several meshes beside each other: dense ones are sharded over
    other ranks than experts, and torch stacks norms of one mesh only. Every rank returns the same scalar.
    """
    groups: dict[DeviceMesh | None, list[Tensor]] = {}
    for parameter in parameters:
        if parameter.grad is not None:
            mesh = parameter.device_mesh if isinstance(parameter, DTensor) else None
            groups.setdefault(mesh, []).append(parameter)
    norms = [
        _whole(torch.nn.utils.get_total_norm([p.grad for p in group if p.grad is not None]))
        for group in groups.values()
    ]
    if not norms:
        return torch.tensor(0.0)
    total = torch.linalg.vector_norm(torch.stack(norms))
    for group in groups.values():
        torch.nn.utils.clip_grads_with_norm_(group, max_norm, total)
    return total


def _whole(norm: Tensor) -> Tensor:
    return norm.full_tensor() if isinstance(norm, DTensor) else norm
