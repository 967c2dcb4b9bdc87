"""AdamW: torch's own where moments are FP32, and close to it where they are BF16."""

import copy
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from lightning_modules.adamw import EagerAdamW, ShardedAdamW, build_adamw

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
SETTINGS = {"lr": 1e-2, "betas": (0.9, 0.95), "eps": 1e-8}


def build_model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 4))


def groups_of(model: nn.Module) -> list[dict]:
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    return [
        {"params": matrices, "weight_decay": 0.1},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]


def build(model: nn.Module, moments: str) -> torch.optim.Optimizer:
    return build_adamw(groups_of(model), moments=TYPES[moments], **SETTINGS)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> list[float]:
    losses = []
    for step in steps:
        x = torch.randn(64, 16, generator=torch.Generator().manual_seed(step))
        loss = (model(x) - x[:, :4].sin()).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_fp32_moments_are_torch_s_own_fused_step_bit_for_bit() -> None:
    ours, theirs = build_model(), build_model()
    optimizer = build(ours, "fp32")
    assert type(optimizer) is torch.optim.AdamW
    assert train(ours, optimizer, range(5)) == train(
        theirs, torch.optim.AdamW(groups_of(theirs), fused=True, **SETTINGS), range(5)
    )


def test_bf16_moments_follow_fp32_ones() -> None:
    exact, rounded = build_model(), build_model()
    exact_losses = train(exact, build(exact, "fp32"), range(150))
    optimizer = build(rounded, "bf16")
    assert isinstance(optimizer, EagerAdamW)
    losses = train(rounded, optimizer, range(150))
    assert losses[0] == exact_losses[0]
    assert losses != exact_losses
    assert losses == pytest.approx(exact_losses, rel=0.05)
    for state in optimizer.state.values():
        assert state["exp_avg"].dtype == state["exp_avg_sq"].dtype == torch.bfloat16


def test_the_first_step_rounds_nothing_yet() -> None:
    exact, rounded = build_model(), build_model()
    train(exact, build(exact, "fp32"), range(1))
    train(rounded, build(rounded, "bf16"), range(1))
    for p, q in zip(exact.parameters(), rounded.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("moments", ["fp32", "bf16"])
def test_a_resumed_training_goes_on_bit_for_bit(moments: str, tmp_path: Path) -> None:
    model = build_model()
    optimizer = build(model, moments)
    train(model, optimizer, range(7))
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "c.pt")
    expected = train(model, optimizer, range(7, 12))
    resumed = build_model()
    again = build(resumed, moments)
    checkpoint = torch.load(tmp_path / "c.pt", weights_only=True)
    resumed.load_state_dict(checkpoint["model"])
    again.load_state_dict(checkpoint["optimizer"])
    assert train(resumed, again, range(7, 12)) == expected
    assert {s["exp_avg"].dtype for s in again.state.values()} == {s["exp_avg"].dtype for s in optimizer.state.values()}


@pytest.mark.parametrize("moments", ["fp32", "bf16"])
def test_moments_of_one_type_load_into_the_other(moments: str) -> None:
    other = {"fp32": "bf16", "bf16": "fp32"}[moments]
    model = build_model()
    optimizer = build(model, moments)
    train(model, optimizer, range(3))
    twin = copy.deepcopy(model)
    loaded = build(twin, other)
    loaded.load_state_dict(optimizer.state_dict())
    expected = train(model, optimizer, range(3, 6))
    assert train(twin, loaded, range(3, 6)) == pytest.approx(expected, rel=0.05)


@pytest.fixture
def process_group(tmp_path: Path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def shard(model: nn.Module) -> None:
    """Parameters as DTensors over two meshes, as dense parameters and experts are."""
    mesh = init_device_mesh("cpu", (1, 1), mesh_dim_names=("a", "b"))
    for i, module in enumerate(m for m in model.modules() if isinstance(m, nn.Linear)):
        for name, parameter in list(module.named_parameters()):
            sharded = distribute_tensor(parameter.detach(), mesh["ab"[i % 2]], [Shard(0)])
            setattr(module, name, nn.Parameter(sharded))


def set_gradients(model: nn.Module, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for parameter in model.parameters():
        gradient = torch.randn(parameter.shape, generator=generator)
        mesh = getattr(parameter, "device_mesh", None)
        parameter.grad = gradient if mesh is None else distribute_tensor(gradient, mesh, [Shard(0)])


def whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


@pytest.mark.parametrize("moments", ["fp32", "bf16"])
def test_shards_of_several_meshes_step_as_the_whole_and_resume(
    moments: str, process_group: None, tmp_path: Path
) -> None:
    plain, sharded = build_model(), build_model()
    shard(sharded)
    optimizers = build(plain, moments), build(sharded, moments)
    assert moments == "bf16" or isinstance(optimizers[1], ShardedAdamW)
    for group in optimizers[1].param_groups:
        if moments == "fp32":
            group["foreach"] = True  # as on a GPU
    for step in range(4):
        for model, optimizer in zip((plain, sharded), optimizers, strict=True):
            set_gradients(model, step)
            optimizer.step()
    for p, q in zip(plain.parameters(), sharded.parameters(), strict=True):
        torch.testing.assert_close(p, whole(q), rtol=1e-6, atol=1e-7)

    saved = {"optimizer": get_optimizer_state_dict(sharded, optimizers[1])}
    dcp.save(saved, checkpoint_id=tmp_path / "dcp")
    resumed = copy.deepcopy(sharded)
    resumed.zero_grad()
    again = build(resumed, moments)
    state = {"optimizer": get_optimizer_state_dict(resumed, again)}
    dcp.load(state, checkpoint_id=tmp_path / "dcp")
    set_optimizer_state_dict(resumed, again, state["optimizer"])
    for parameter, other in zip(sharded.parameters(), resumed.parameters(), strict=True):
        for name in ("exp_avg", "exp_avg_sq"):
            first, second = optimizers[1].state[parameter][name], again.state[other][name]
            assert first.dtype == second.dtype
            assert torch.equal(whole(first), whole(second))
    for model, optimizer in ((sharded, optimizers[1]), (resumed, again)):
        set_gradients(model, 9)
        optimizer.step()
    assert all(torch.equal(whole(p), whole(q)) for p, q in zip(sharded.parameters(), resumed.parameters(), strict=True))
