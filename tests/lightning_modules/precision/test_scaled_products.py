"""Layers and experts scaled by row and by tensor, against torchao's linear layers and float64."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lightning_modules.precision.recipes import RECIPES, convert_to_fp8
from lightning_modules.precision.scaled_products import ScaledGroupedMM, runs_on_scaled_products
from lightning_modules.precision.scaling import Scaling

TORCHAO_S = (Scaling.ROWWISE, Scaling.TENSORWISE)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def run(
    scaling: Scaling, counts: list[int], n_in: int, n_out: int, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> tuple[tuple[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]:
    """Operands (rows, weight, gradient) and results (output, gradients of rows and weight)."""
    offsets = torch.tensor(counts, device=device).cumsum(0).to(torch.int32)
    operands = random(sum(counts), n_in), random(len(counts), n_out, n_in, seed=1), random(sum(counts), n_out, seed=2)
    rows, weight, gradient = (x.to(device, dtype) for x in operands)
    rows.requires_grad_()
    weight.requires_grad_()
    y = ScaledGroupedMM(scaling)(rows, weight, offsets)
    y.backward(gradient)
    assert rows.grad is not None
    assert weight.grad is not None
    return (rows.detach(), weight.detach(), gradient), (y.detach(), rows.grad, weight.grad)


def relative(actual: Tensor, expected: Tensor) -> float:
    return float((actual.double() - expected.double()).norm() / expected.double().norm().clamp_min(1e-30))


def torchao_layer(weight: Tensor, scaling: Scaling) -> nn.Module:
    torchao = pytest.importorskip("torchao.float8")
    layer = nn.Sequential(nn.Linear(weight.shape[1], weight.shape[0], bias=False))
    with torch.no_grad():
        layer[0].weight.copy_(weight)
    config = replace(torchao.Float8LinearConfig.from_recipe_name(scaling.value), emulate=True)
    return torchao.convert_to_float8_training(layer, config=config)[0]


def test_a_layer_by_rows_computes_what_torchao_s_does() -> None:
    x, weight, gradient = random(40, 96), random(48, 96, seed=1), random(40, 48, seed=2)
    layers = nn.Linear(96, 48, bias=False), torchao_layer(weight, Scaling.ROWWISE)
    convert_to_fp8(nn.Sequential(layers[0]), RECIPES["fp8_rowwise"])
    with torch.no_grad():
        layers[0].weight.copy_(weight)
    results = []
    for layer in layers:
        inputs = x.clone().requires_grad_()
        y = layer(inputs)
        y.backward(gradient)
        results.append((y.detach(), inputs.grad, layer.weight.grad))
    for mine, reference in zip(*results, strict=True):
        assert relative(mine, reference) < 1e-6


@pytest.mark.parametrize("scaling", TORCHAO_S)
def test_an_expert_computes_what_torchao_s_layer_does(scaling: Scaling) -> None:
    # One expert, for a tensor's scale is that of all experts' rows.
    (rows, weight, gradient), (y, grad_rows, grad_weight) = run(scaling, [40], 96, 48)
    layer = torchao_layer(weight[0], scaling)
    rows.requires_grad_()
    expected = layer(rows)
    expected.backward(gradient)
    assert relative(y, expected.detach()) < 1e-6
    # torchao's gradients by tensor are E5M2, with two bits of mantissa.
    tolerance = 1e-6 if scaling is Scaling.ROWWISE else 0.08
    assert relative(grad_rows, rows.grad) < tolerance
    assert relative(grad_weight[0], layer.weight.grad) < tolerance


@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from(Scaling),
    st.lists(st.integers(0, 40), min_size=1, max_size=4).filter(sum),
    st.integers(1, 70),
    st.integers(1, 70),
)
def test_every_product_is_near_that_in_float64(scaling: Scaling, counts: list[int], n_in: int, n_out: int) -> None:
    (rows, weight, gradient), (y, grad_rows, grad_weight) = run(scaling, counts, n_in, n_out)
    found, expected = (y, grad_rows, grad_weight), products(rows.double(), weight.double(), gradient.double(), counts)
    # A product of a single pair of numbers is off by 2 · 2⁻⁴ at worst; where several cancel, their sum is so by more.
    sizes = products(rows.double().abs(), weight.double().abs(), gradient.double().abs(), counts)
    for actual, exact, size in zip(found, expected, sizes, strict=True):
        assert (actual.double() - exact).norm() < 0.13 * size.norm()


def products(rows: Tensor, weight: Tensor, gradient: Tensor, counts: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Every expert's output, gradient of rows and gradient of weights, one after another."""
    parts = list(zip(rows.split(counts), weight, gradient.split(counts), strict=True))
    return (
        torch.cat([r @ w.T for r, w, _ in parts]),
        torch.cat([g @ w for _, w, g in parts]),
        torch.stack([g.T @ r for r, _, g in parts]),
    )


def test_rows_do_not_share_a_scale_and_tensors_do() -> None:
    sizes = torch.logspace(-6, 6, 32)[:, None]
    weight, offsets = random(1, 48, 96, seed=1), torch.tensor([32], dtype=torch.int32)
    rows = random(32, 96) * sizes
    expected = rows @ weight[0].T
    for scaling, is_exact in ((Scaling.ROWWISE, True), (Scaling.TENSORWISE, False)):
        y = ScaledGroupedMM(scaling)(rows, weight, offsets)
        worst = ((y - expected).norm(dim=1) / expected.norm(dim=1)).max()
        assert (worst < 0.08) == is_exact


@pytest.mark.skipif(
    not torch.cuda.is_available() or not runs_on_scaled_products(torch.Size((16, 16)), torch.device("cuda")),
    reason="needs a GPU that multiplies FP8 by groups",
)
@pytest.mark.parametrize("scaling", TORCHAO_S)
@pytest.mark.parametrize("counts", [[130, 0, 11, 159], [16, 32, 48, 64], [1, 1, 1, 1]])
def test_the_gpu_computes_what_is_emulated(scaling: Scaling, counts: list[int]) -> None:
    _, on_cpu = run(scaling, counts, 256, 128, dtype=torch.bfloat16)
    _, on_gpu = run(scaling, counts, 256, 128, "cuda", torch.bfloat16)
    for actual, expected in zip(on_gpu, on_cpu, strict=True):
        assert relative(actual.cpu(), expected) < 5e-3
