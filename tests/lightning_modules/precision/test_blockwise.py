"""Layers in blockwise FP8: the three products each one runs, and in which types."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from lightning_modules.model.dispatch import Choice
from lightning_modules.model.experts import MixtureOfExperts
from lightning_modules.precision.kernels.blockwise import available
from lightning_modules.precision.quantised import QuantisedLinear, blockwise_grouped_mm, keep_copies
from lightning_modules.precision.recipes import RECIPES, Recipe, convert_to_fp8
from tests.conftest import TINY

needs_hopper = pytest.mark.skipif(
    not torch.cuda.is_available() or not available("cuda"), reason="needs a Hopper GPU (compute capability 9.0)"
)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def blockwise(in_features: int, out_features: int) -> nn.Linear:
    linear = nn.Linear(in_features, out_features, bias=False)
    with torch.no_grad():
        linear.weight.copy_(random(out_features, in_features, seed=3))
    linear.__class__ = QuantisedLinear
    return linear


def by_torchao(x: Tensor, weight: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Output and both gradients as torchao's `fp8_blockwise_mm` computes them, from its plain references."""
    torchao = pytest.importorskip("torchao.prototype.blockwise_fp8_training.kernels")

    def tiles(x: Tensor) -> Tensor:
        values, scales = torchao.torch_blockwise_scale_act_quant_lhs(x)
        return values.double() * scales.double().repeat_interleave(128, dim=1)

    def columns(x: Tensor) -> Tensor:
        values, scales = torchao.torch_blockwise_scale_act_quant_rhs(x)
        return values.double() * scales.double().repeat_interleave(128, dim=0)

    values, scales = torchao.torch_blockwise_scale_weight_quant(weight)
    blocks = values.double() * scales.double().repeat_interleave(128, dim=0).repeat_interleave(128, dim=1)
    return tiles(x) @ blocks.T, tiles(gradient) @ blocks, columns(gradient).T @ columns(x)


def relative(actual: Tensor, expected: Tensor) -> float:
    return float((actual.double() - expected).norm() / expected.norm())


def test_a_layer_runs_all_three_products_as_torchao() -> None:
    x, gradient, layer = random(2, 128, 384), random(2, 128, 256, seed=1), blockwise(384, 256)
    x.requires_grad_()
    y = layer(x)
    y.backward(gradient)
    assert x.grad is not None
    assert layer.weight.grad is not None
    flat = x.detach().flatten(0, 1), layer.weight.detach(), gradient.flatten(0, 1)
    for actual, expected in zip(
        (y.flatten(0, 1), x.grad.flatten(0, 1), layer.weight.grad), by_torchao(*flat), strict=True
    ):
        assert relative(actual.detach(), expected) < 1e-6


@pytest.mark.parametrize("shape", [(37, 200, 150), (300, 128, 72), (1, 5, 3)])
def test_all_three_products_are_near_those_in_float64(shape: tuple[int, int, int]) -> None:
    n_rows, n_in, n_out = shape
    x, gradient, layer = random(n_rows, n_in), random(n_rows, n_out, seed=1), blockwise(n_in, n_out)
    x.requires_grad_()
    y = layer(x)
    y.backward(gradient)
    exact_x, exact_weight, exact_gradient = x.detach().double(), layer.weight.detach().double(), gradient.double()
    assert relative(y.detach(), exact_x @ exact_weight.T) < 0.045
    assert relative(x.grad, exact_gradient @ exact_weight) < 0.045
    assert relative(layer.weight.grad, exact_gradient.T @ exact_x) < 0.045


def test_grouped_experts_compute_what_single_layers_do() -> None:
    counts = [130, 0, 41]
    offsets = torch.tensor(counts).cumsum(0).to(torch.int32)
    rows, weight = random(171, 200).requires_grad_(), random(3, 72, 200, seed=2).requires_grad_()
    gradient = random(171, 72, seed=1)
    y = blockwise_grouped_mm(rows, weight, offsets)
    y.backward(gradient)
    for e, (part, part_y, part_gradient, grad_rows) in enumerate(
        zip(rows.detach().split(counts), y.split(counts), gradient.split(counts), rows.grad.split(counts), strict=True)
    ):
        layer = blockwise(200, 72)
        with torch.no_grad():
            layer.weight.copy_(weight[e])
        part.requires_grad_()
        expected = layer(part)
        expected.backward(part_gradient)
        torch.testing.assert_close(part_y, expected, rtol=1e-5, atol=1e-4)
        torch.testing.assert_close(grad_rows, part.grad, rtol=1e-5, atol=1e-4)
        torch.testing.assert_close(weight.grad[e], layer.weight.grad, rtol=1e-5, atol=1e-4)


def test_autocast_decides_the_output_and_leaves_the_gradients_their_types() -> None:
    layer, x = blockwise(64, 48), random(5, 64).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    y.float().square().sum().backward()
    assert (y.dtype, x.grad.dtype, layer.weight.grad.dtype) == (torch.bfloat16, torch.float32, torch.float32)
    # The emulated product itself stays in FP32: only its operands and its result are rounded.
    exact = layer(x.detach().bfloat16().float())
    assert torch.equal(y, exact.bfloat16())


def test_a_layer_keeps_one_byte_a_number_of_its_input() -> None:
    layer, x = blockwise(256, 128), random(128, 256).requires_grad_()
    kept: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        layer(x)
    activations = [tensor for tensor in kept if tensor.data_ptr() != layer.weight.data_ptr()]
    assert sum(t.numel() * t.element_size() for t in activations) == x.numel() + 4 * x.numel() // 128


@pytest.fixture(params=["fp8_deepseek", "fp8_rowwise"])
def recipe(request: pytest.FixtureRequest) -> Recipe:
    """One that has kernels."""
    return RECIPES[request.param]


@pytest.fixture(params=[128, 208])
def mixture(request: pytest.FixtureRequest, recipe: Recipe) -> MixtureOfExperts:
    """A mixture in FP8, whose experts are as wide as a tile, or not a multiple of it."""
    torch.manual_seed(0)
    mixture = MixtureOfExperts(replace(TINY, hidden_size=256, moe_intermediate_size=request.param))
    for parameter in mixture.parameters():
        nn.init.normal_(parameter, std=0.05)
    convert_to_fp8(mixture, recipe)
    return mixture


def run(mixture: MixtureOfExperts, x: Tensor, gradient: Tensor) -> list[Tensor]:
    """Output, and gradients of the input and of all parameters."""
    x = x.detach().requires_grad_()
    output, _ = mixture(x)
    output.backward(gradient)
    gradients = [parameter.grad for parameter in mixture.parameters() if parameter.grad is not None]
    for parameter in mixture.parameters():
        parameter.grad = None
    return [output.detach(), x.grad, *gradients]


@needs_hopper
def test_a_mixture_on_kernels_computes_what_is_emulated(mixture: MixtureOfExperts) -> None:
    x, gradient = random(2, 150, 256).bfloat16(), random(2, 150, 256, seed=1).bfloat16()
    rounded = copy.deepcopy(mixture)
    for name, parameter in rounded.named_parameters():
        parameter.data = parameter.data if name.startswith("gate.") else parameter.data.bfloat16()
    expected = run(copy.deepcopy(rounded).float(), x.float(), gradient.float())
    actual = run(rounded.to("cuda"), x.cuda(), gradient.cuda())
    for mine, reference in zip(actual, expected, strict=True):
        assert relative(mine.cpu(), reference.double()) < 0.02


@needs_hopper
def test_kept_copies_are_those_made_on_the_way(mixture: MixtureOfExperts) -> None:
    x, gradient = random(2, 150, 256).bfloat16().cuda(), random(2, 150, 256, seed=1).bfloat16().cuda()
    for name, parameter in mixture.named_parameters():
        parameter.data = parameter.data if name.startswith("gate.") else parameter.data.bfloat16()
    mixture = mixture.to("cuda")
    source, expected = copy.deepcopy(mixture), run(mixture, x, gradient)
    keepers = keep_copies(mixture)
    assert mixture.experts in keepers
    for keeper in keepers:
        keeper.renew_copies(source.get_submodule(next(n for n, m in mixture.named_modules() if m is keeper)))
    for mine, reference in zip(run(mixture, x, gradient), expected, strict=True):
        assert torch.equal(mine, reference)


@needs_hopper
def test_experts_in_two_places_sum_up_to_all_of_them(mixture: MixtureOfExperts) -> None:
    experts = mixture.experts.to("cuda", torch.bfloat16)
    n_experts = experts.gate_up_proj.shape[0]
    tokens, gates = random(300, 256).bfloat16().cuda(), random(300, 2, seed=1).abs().cuda()
    indices = random(300, n_experts, seed=2).topk(2).indices.cuda()
    gradient = random(300, 256, seed=3).bfloat16().cuda()

    def mix(first: int, last: int, room: int) -> list[Tensor]:
        """Sums of the experts from `first` to `last`, and gradients of tokens and gates."""
        here = copy.deepcopy(experts)
        for name, weight in list(here.named_parameters()):
            setattr(here, name, nn.Parameter(weight[first:last].clone()))
        inputs = [tensor.clone().requires_grad_() for tensor in (tokens, gates)]
        choice = Choice(*inputs, torch.where((indices >= first) & (indices < last), indices - first, -1))
        output = here.mix(choice, room)
        return [output.detach(), *torch.autograd.grad(output, inputs, gradient)]

    halves = mix(0, n_experts // 2, 512), mix(n_experts // 2, n_experts, 512)
    for first, second, reference in zip(*halves, mix(0, n_experts, 600), strict=True):
        assert relative(first.double() + second, reference.double()) < 0.01
