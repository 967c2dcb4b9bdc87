"""Muon: hidden matrices step in directions of which all singular values are about one.

What a gradient's momentum says of many directions, a few large singular values drown out; Muon gives all an equal say
(K. Jordan et al., 2024, https://kellerjordan.github.io/posts/muon). Scaled to the size of AdamW's steps, it takes the
same learning rate and weight decay (arXiv 2502.16982, section 2.2).
"""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard

from lightning_modules.adamw import EagerAdamW
from lightning_modules.model.sharded import local
from lightning_modules.precision.working_weights import WorkingWeights

# Of the quintic that drives singular values towards one, and how often it is applied (Jordan et al.).
COEFFICIENTS = 3.4445, -4.7750, 2.0315
N_ITERATIONS = 5
SMALLEST_NORM = 1e-7
# Of all matrices that are made orthogonal at once on a rank, about: small ones are not worth a launch each.
MOST_NUMBERS = 2**24
# The root mean square of AdamW's steps, at a learning rate of one (arXiv 2502.16982, equation 4).
ADAMW_STEP = 0.2


class Muon(EagerAdamW):
    """Muon for the groups whose `n_stacked` is positive, AdamW for the others.

    A parameter is a matrix [out, in], or as many as its first dimension counts. `n_stacked` matrices of equal height
    lie above one another in each, and are stepped apart. Matrices that are split over ranks are put together on one of
    these each, so that no rank computes what another does.

    Args:
        params: in groups, each with its own `weight_decay` and `n_stacked`.
        lr: the rate of both.
        betas: of AdamW's moments.
        eps: added to the root of the second.
        moments: the type of moments and of the momentum.
        momentum: what remains of the momentum after a step, μ.
        working_weights: what is rounded anew after a step.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        betas: tuple[float, float],
        eps: float,
        moments: torch.dtype,
        momentum: float,
        working_weights: WorkingWeights | None = None,
    ) -> None:
        super().__init__(params, lr, betas, eps, moments, {"n_stacked": 0})
        self.momentum = momentum
        self._working_weights = working_weights

    def step_groups(self) -> None:
        """Step every parameter that has a gradient."""
        super().step_groups()
        if self._working_weights is not None:
            self._working_weights.refresh()

    def step_group(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        """Step `parameters`, of `group`."""
        if not group["n_stacked"]:
            super().step_group(group, parameters)
            return
        for alike in _alike(parameters):
            self._step_matrices(alike, group)

    def _step_matrices(self, alike: list[Tensor], group: dict[str, Any]) -> None:
        height, width = alike[0].shape[-2] // group["n_stacked"], alike[0].shape[-1]
        stacks = [_as_stack(self._follow(parameter)) for parameter in alike]
        steps = _orthogonalise(torch.cat(stacks), alike[0], group["n_stacked"])
        rate = group["lr"] * ADAMW_STEP * math.sqrt(max(height, width))
        for parameter, step in zip(alike, steps.split([len(stack) for stack in stacks]), strict=True):
            weight = local(parameter)
            weight.mul_(1 - group["lr"] * group["weight_decay"])
            weight.add_(step.view_as(weight), alpha=-rate)

    def _follow(self, parameter: Tensor) -> Tensor:
        """Take the gradient into the momentum, and return where both point (Nesterov), in the type that multiplies."""
        assert parameter.grad is not None
        state, gradient = self.state[parameter], local(parameter.grad).float()
        if not state:
            state["momentum_buffer"] = torch.zeros_like(parameter, dtype=self.moments)
        kept = local(state["momentum_buffer"])
        momentum = kept.float().mul_(self.momentum).add_(gradient)
        kept.copy_(momentum)
        return gradient.add(momentum, alpha=self.momentum).to(torch.bfloat16 if gradient.is_cuda else torch.float32)


def orthogonal(matrices: Tensor) -> Tensor:
    """The matrices [N, out, in] with singular values near one, between 0.7 and 1.2; zeros stay zeros.

    Newton-Schulz iterations of a polynomial which need not meet one: steep where singular values are small (Jordan et
    al.).
    """
    if matrices.shape[1] > matrices.shape[2]:
        return orthogonal(matrices.mT).mT
    a, b, c = COEFFICIENTS
    x = matrices / matrices.norm(dim=(1, 2), keepdim=True).clamp_min(SMALLEST_NORM)
    for _ in range(N_ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def _alike(parameters: list[Tensor]) -> Iterator[list[Tensor]]:
    """Parameters of one shape that are split alike: few at once where they are large, but a matrix for every rank."""
    kinds: dict[Any, list[Tensor]] = {}
    for parameter in parameters:
        layout = (parameter.device_mesh, parameter.placements) if isinstance(parameter, DTensor) else None
        kinds.setdefault((parameter.shape, layout), []).append(parameter)
    for kind in kinds.values():
        split = _split(kind[0])
        n_ranks = 1 if split is None else split[0].size()
        n_at_once = max(MOST_NUMBERS // max(local(kind[0]).numel(), 1), n_ranks)
        for start in range(0, len(kind), n_at_once):
            yield kind[start : start + n_at_once]


def _split(parameter: Tensor) -> tuple[DeviceMesh, int] | None:
    """The ranks over which single matrices of `parameter` are split, and the dimension of a stack along which."""
    if not isinstance(parameter, DTensor):
        return None
    mesh, n_stacks = parameter.device_mesh, parameter.ndim - 2
    for name, placement in zip(mesh.mesh_dim_names or (), parameter.placements, strict=True):
        if isinstance(placement, Shard) and placement.dim >= n_stacks and mesh[name].size() > 1:
            return mesh[name], placement.dim + 1 - n_stacks
    return None


def _orthogonalise(parts: Tensor, like: Tensor, n_stacked: int) -> Tensor:
    """This rank's parts [N, …] of N matrices, split as `like` is, of the same matrices made orthogonal."""
    split = _split(like)
    if split is None:
        return _orthogonalise_whole(parts, n_stacked)
    mesh, dimension = split
    shape = torch.Size((len(parts), *like.shape[-2:]))
    matrices = _redistributed(parts, mesh, shape, dimension, 0)
    return _redistributed(_orthogonalise_whole(matrices, n_stacked), mesh, shape, 0, dimension)


def _orthogonalise_whole(matrices: Tensor, n_stacked: int) -> Tensor:
    if matrices.numel() == 0:
        return matrices
    apart = matrices.unflatten(1, (n_stacked, -1)).flatten(0, 1)
    return orthogonal(apart).reshape_as(matrices)


def _redistributed(part: Tensor, mesh: DeviceMesh, shape: torch.Size, held: int, wanted: int) -> Tensor:
    """This rank's part along the dimension `wanted` of what the ranks hold parts of along `held`."""
    strides = (shape[1] * shape[2], shape[2], 1)
    whole = DTensor.from_local(part, mesh, [Shard(held)], run_check=False, shape=shape, stride=strides)
    return whole.redistribute(placements=[Shard(wanted)]).to_local()


def _as_stack(matrices: Tensor) -> Tensor:
    return matrices if matrices.ndim == 3 else matrices.unsqueeze(0)
