"""The scale of FP16's losses: over plain and sharded gradients, and agreed upon by all ranks."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from lightning_modules.precision.loss_scaling import LossScale
from tests.ranks import run_on_ranks


def optimizer_of(*gradients: torch.Tensor) -> torch.optim.Optimizer:
    parameters = [nn.Parameter(torch.zeros_like(gradient)) for gradient in gradients]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    return torch.optim.SGD(parameters, lr=1.0)


def test_gradients_are_divided_by_the_scale() -> None:
    scale = LossScale(initial=8.0)
    optimizer = optimizer_of(torch.tensor([8.0, 16.0]), torch.tensor([[4.0]]))
    assert scale.unscale(optimizer)
    first, second = (parameter.grad for parameter in optimizer.param_groups[0]["params"])
    assert first.tolist() == [1.0, 2.0]
    assert second.tolist() == [[0.5]]


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_one_number_that_is_not_finite_is_enough(bad: float) -> None:
    assert not LossScale().unscale(optimizer_of(torch.ones(3), torch.tensor([1.0, bad])))


def test_the_scale_falls_at_once_and_grows_slowly() -> None:
    scale = LossScale(initial=8.0, growth_interval=3)
    scale.update(is_finite=False)
    assert scale.value == 4.0
    for _ in range(2):
        scale.update(is_finite=True)
    scale.update(is_finite=False)
    assert scale.value == 2.0
    values = []
    for _ in range(6):
        scale.update(is_finite=True)
        values.append(scale.value)
    assert values == [2.0, 2.0, 4.0, 4.0, 4.0, 8.0]


def overflow_on_one_rank(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (1, 2), mesh_dim_names=("a", "b"))
    # Gradients of different meshes, as dense parameters' and experts' are.
    gradients = [distribute_tensor(torch.full((4, 2), 6.0), mesh["a"], [Shard(0)]), torch.full((3,), 6.0)]
    scale = LossScale(initial=2.0)
    results = [scale.unscale(optimizer_of(*gradients))]
    sharded = distribute_tensor(torch.ones(2, 4), mesh["b"], [Shard(0)])
    if rank == 1:
        sharded.to_local()[0, 2] = float("inf")
    results.append(scale.unscale(optimizer_of(*gradients, sharded)))
    torch.save((results, gradients[0].to_local()), folder / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def test_all_ranks_skip_the_step_that_one_has_to(tmp_path: Path) -> None:
    run_on_ranks(overflow_on_one_rank, 2, tmp_path)
    for rank in range(2):
        results, gradient = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert results == [True, False]
        assert (gradient == 1.5).all()  # divided twice
