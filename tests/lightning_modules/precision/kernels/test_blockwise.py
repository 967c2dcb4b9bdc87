"""The kernels against the emulation and float64 where there is a Hopper GPU; elsewhere, what can be known without."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from lightning_modules.precision import emulation
from lightning_modules.precision.emulation import BLOCK
from lightning_modules.precision.kernels import blockwise, unaligned_swiglu
from lightning_modules.precision.scaling import Scaling
from tests.lightning_modules.precision.kernels.blockwise_cases import (
    LAYERS,
    ROUTINGS,
    TENSOR_CORE_ERROR,
    along_tokens,
    assert_same,
    needs_hopper,
    numbers,
    plan_of,
    relative_error,
)


def test_no_kernels_on_a_cpu() -> None:
    assert not blockwise.available("cpu")
    assert not blockwise.available(torch.device("cpu"))


@pytest.mark.parametrize(
    ("sides", "fits"), [((2048, 576), True), ((16, 16), True), ((24, 16), False), ((16, 8), False)]
)
def test_only_weights_of_whole_lines_fit(sides: tuple[int, int], fits: bool) -> None:
    assert blockwise.fits(*sides) == fits


def test_no_kernels_without_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(blockwise.importlib.util, "find_spec", lambda name: name)
    assert blockwise.available("cuda:6")
    monkeypatch.setattr(blockwise.importlib.util, "find_spec", lambda name: None)
    assert not blockwise.available("cuda:7")  # a device of its own, for answers are remembered


@pytest.mark.parametrize(("n_rows", "n_columns"), [(256, 256), (150, 208), (1, 16)])
def test_quantised_shapes_are_known_beforehand(n_rows: int, n_columns: int) -> None:
    real = torch.randn(n_rows, n_columns)
    with FakeTensorMode() as mode:
        x = mode.from_tensor(real)
        rows, across = blockwise.quantise(x), blockwise.quantise_1x128(x)
        weight = blockwise.quantise_weight(torch.empty(3, n_rows, n_columns))
    row_tiles = -(-n_rows // BLOCK)
    reference, stack = emulation.quantise_1x128(real), emulation.quantise_128x128(torch.randn(3, n_rows, n_columns))
    assert (across.values.shape, across.scales.shape) == (reference.values.shape, reference.scales.shape)
    assert rows.values.shape == (row_tiles * BLOCK, n_columns)
    assert rows.scales.shape == (reference.scales.shape[1], row_tiles * BLOCK)
    assert along_tokens(rows).shape == rows.values.shape
    assert rows.transposed_scales.shape == emulation.quantise_128x1(real).scales.shape
    assert weight.scales.shape == stack.scales.shape
    assert weight.transposed.shape == stack.values.mT.shape


@pytest.mark.parametrize("output_dtype", [torch.bfloat16, torch.float32])
def test_products_shapes_are_known_beforehand(output_dtype: torch.dtype) -> None:
    with FakeTensorMode():
        tokens, gradient = torch.empty(150, 64), torch.empty(150, 96)
        plan = blockwise.plan_choices(torch.empty(150, 2, dtype=torch.int64), 4)
        assert [part.shape for part in blockwise.plan_rows(torch.empty(4, dtype=torch.int32), 300)] == [
            part.shape for part in plan
        ]
        weight = blockwise.quantise_weight(torch.empty(4, 96, 64))
        rows = blockwise.quantise_routed(tokens, plan, 2)
        gradients = blockwise.quantise_routed(gradient, plan, 2)
        product = blockwise.multiply_rows(rows, weight[:2], plan, output_dtype=output_dtype)
        of_weight = blockwise.multiply_tokens(gradients, rows[2:], plan, output_dtype)
        hidden = blockwise.swiglu(torch.empty(768, 512), torch.empty(300), plan)
        of_gate_up, of_gates = blockwise.swiglu_backward(
            torch.empty(768, 256), torch.empty(768, 512), torch.empty(300), plan
        )
    n_stored = BLOCK * (300 // BLOCK + 4)
    assert (product.shape, product.dtype) == ((n_stored, 96), output_dtype)
    assert (of_weight.shape, of_weight.dtype) == ((4, 96, 64), output_dtype)
    assert hidden.values.shape == (n_stored, 256)
    assert of_gate_up.values.shape == (n_stored, 512)
    assert of_gates.shape == (300,)


@needs_hopper
@pytest.mark.parametrize(("room", "n_placed"), [(500, 420), (420, 420), (30, 20 + BLOCK)])
def test_a_plan_leaves_out_what_is_elsewhere_or_finds_no_room(room: int, n_placed: int) -> None:
    experts = torch.tensor([-1, 0, 1, -1]).repeat_interleave(torch.tensor([50, 20, 400, 30]))
    indices = experts[torch.randperm(500)].cuda()
    plan = blockwise.plan_choices(indices, 2, room)
    assert plan.experts.numel() == room // BLOCK + 2
    has_place = plan.places >= 0
    assert int(has_place.sum()) == n_placed
    assert not has_place[indices < 0].any()
    placed = has_place.nonzero().flatten()
    assert torch.equal(plan.choices[plan.places[placed].long()].long(), placed)
    assert int((plan.choices >= 0).sum()) == placed.numel()
    assert torch.equal(plan.experts[(plan.places[placed] // BLOCK).long()].long(), indices[placed])
    assert int(plan.spans[:, 1:].max()) <= plan.experts.numel()


@needs_hopper
@pytest.mark.parametrize("counts", [routing[0] for routing in ROUTINGS])
def test_a_plan_gives_every_choice_a_row_among_its_expert_s(counts: list[int]) -> None:
    order, _, plan = plan_of(counts)
    is_used = plan.choices >= 0
    assert torch.equal(plan.choices[is_used].long(), order)
    assert torch.equal(plan.choices[plan.places.long()].long(), torch.arange(sum(counts), device="cuda"))
    tiles = torch.tensor([-(-count // BLOCK) for count in counts])
    owners = torch.arange(len(counts)).repeat_interleave(tiles)
    assert plan.experts.tolist() == owners.tolist() + [-1] * (len(plan.experts) - len(owners))
    spans = [
        [expert, int(end - n), int(end)] for expert, (n, end) in enumerate(zip(tiles, tiles.cumsum(0), strict=True))
    ]
    assert sorted(plan.spans.tolist()) == spans
    assert (plan.spans[:, 2] - plan.spans[:, 1]).tolist() == tiles.sort(descending=True).values.tolist()
    rows_of_tiles = is_used.view(-1, BLOCK).sum(dim=1).cpu()
    assert [int(rows_of_tiles[: len(owners)][owners == e].sum()) for e in range(len(counts))] == counts


@needs_hopper
@pytest.mark.parametrize("counts", [routing[0] for routing in ROUTINGS])
def test_rows_in_order_are_planned_as_they_lie(counts: list[int]) -> None:
    _, offsets, shuffled = plan_of(counts)
    plan = blockwise.plan_rows(offsets, sum(counts) + 5)
    assert torch.equal(plan.choices[plan.choices >= 0].long(), torch.arange(sum(counts), device="cuda"))
    assert torch.equal(plan.choices[plan.places[:-5].long()].long(), torch.arange(sum(counts), device="cuda"))
    assert plan.places[-5:].tolist() == [-1] * 5
    assert torch.equal(plan.spans, shuffled.spans)
    n_tiles = int(plan.spans[:, 2].max())
    assert torch.equal(plan.experts[:n_tiles], shuffled.experts[:n_tiles])


@needs_hopper
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(("n_rows", "n_columns"), [(256, 256), (150, 208), (1, 128), (1000, 576), (7, 16)])
def test_quantised_as_by_the_emulation(n_rows: int, n_columns: int, dtype: torch.dtype) -> None:
    x = numbers(n_rows, n_columns, dtype=dtype)
    rows, across, along = blockwise.quantise(x), emulation.quantise_1x128(x), emulation.quantise_128x1(x)
    assert_same(rows.values[:n_rows], across.values)
    assert_same(rows.scales.mT[:n_rows], across.scales)
    assert_same(along_tokens(rows)[:n_rows], along.values)
    assert not along_tokens(rows)[n_rows:].float().any()
    assert_same(rows.transposed_scales, along.scales)
    for mine, reference in zip(blockwise.quantise_1x128(x), across, strict=True):
        assert_same(mine, reference)
    weight, square = blockwise.quantise_weight(x), emulation.quantise_128x128(x)
    for mine, back, reference in zip(weight[:2], weight[2:], square, strict=True):
        assert_same(mine, reference)
        assert_same(back.mT, reference)


@needs_hopper
@pytest.mark.parametrize(("counts", "n_columns"), [(routing[0], routing[2]) for routing in ROUTINGS])
def test_routed_rows_are_quantised_as_by_the_emulation(counts: list[int], n_columns: int) -> None:
    n_choices = sum(counts)
    order, offsets, plan = plan_of(counts)
    tokens = numbers(n_choices, n_columns)
    rows = blockwise.quantise_routed(tokens, plan, 1)
    across = emulation.quantise_1x128(tokens[order])
    along = emulation.quantise_grouped_128x1(tokens[order], offsets)
    is_used, n_tiles = plan.choices >= 0, int(plan.spans[:, 2].max())
    assert_same(rows.values[is_used], across.values)
    assert_same(rows.scales.mT[is_used], across.scales)
    assert_same(along_tokens(rows)[is_used], along.values)
    assert not along_tokens(rows)[: BLOCK * n_tiles][~is_used[: BLOCK * n_tiles]].float().any()
    assert_same(rows.transposed_scales[:n_tiles, :n_columns], along.scales[:n_tiles])


@needs_hopper
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_no_number_stays_visible(bad: float) -> None:
    x = torch.randn(128, 256, device="cuda")
    x[2, 130] = bad
    rows, weight = blockwise.quantise(x), blockwise.quantise_weight(x)
    for mine, reference in (
        (rows.values, emulation.quantise_1x128(x).values),
        (along_tokens(rows), emulation.quantise_128x1(x).values),
        (weight.values, emulation.quantise_128x128(x).values),
    ):
        assert reference.float().isnan().any()
        assert torch.equal(mine.float().isnan(), reference.float().isnan())


@needs_hopper
@pytest.mark.parametrize(("n_rows", "out_features", "in_features"), LAYERS)
def test_linear_products(n_rows: int, out_features: int, in_features: int) -> None:
    x, gradient = numbers(n_rows, in_features), numbers(n_rows, out_features)
    weight = 0.02 * torch.randn(out_features, in_features, device="cuda")
    x_64 = emulation.dequantise(emulation.quantise_1x128(x), (1, BLOCK), torch.float64)
    gradient_64 = emulation.dequantise(emulation.quantise_1x128(gradient), (1, BLOCK), torch.float64)
    weight_64 = emulation.dequantise(emulation.quantise_128x128(weight), (BLOCK, BLOCK), torch.float64)
    quantised = blockwise.quantise_weight(weight)
    y = blockwise.multiply_rows(blockwise.quantise(x), quantised[:2], None, n_rows, torch.float32)
    assert relative_error(y, x_64 @ weight_64.mT) < TENSOR_CORE_ERROR
    of_input = blockwise.multiply_rows(blockwise.quantise(gradient), quantised[2:], None, n_rows, torch.float32)
    assert relative_error(of_input, gradient_64 @ weight_64) < TENSOR_CORE_ERROR

    # Of like magnitudes, for the product sums over rows.
    x, gradient = x.sign() * torch.rand_like(x), gradient.sign() * torch.rand_like(gradient)
    expected = emulation.dequantise(emulation.quantise_128x1(gradient), (BLOCK, 1), torch.float64).mT
    expected = expected @ emulation.dequantise(emulation.quantise_128x1(x), (BLOCK, 1), torch.float64)
    for dtype, error in ((torch.float32, TENSOR_CORE_ERROR), (torch.bfloat16, 3e-3)):
        result = blockwise.multiply_plain_tokens(blockwise.quantise(gradient), blockwise.quantise(x)[2:], dtype)
        assert relative_error(result, expected) < error


@needs_hopper
@pytest.mark.parametrize(("counts", "out_features", "in_features"), ROUTINGS)
def test_grouped_products(counts: list[int], out_features: int, in_features: int) -> None:
    order, _, plan = plan_of(counts)
    tokens, gradient = numbers(sum(counts), in_features), numbers(sum(counts), out_features)
    weight = 0.02 * torch.randn(len(counts), out_features, in_features, device="cuda")
    weight_64 = emulation.dequantise(emulation.quantise_128x128(weight), (BLOCK, BLOCK), torch.float64)
    rows_64 = emulation.dequantise(emulation.quantise_1x128(tokens[order]), (1, BLOCK), torch.float64)
    gradient_64 = emulation.dequantise(emulation.quantise_1x128(gradient[order]), (1, BLOCK), torch.float64)
    quantised, is_used = blockwise.quantise_weight(weight), plan.choices >= 0

    expected = torch.cat([part @ w.mT for part, w in zip(rows_64.split(counts), weight_64, strict=True)])
    rows = blockwise.quantise_routed(tokens, plan, 1)
    y = blockwise.multiply_rows(rows, quantised[:2], plan, output_dtype=torch.float32)
    assert relative_error(y[is_used], expected) < TENSOR_CORE_ERROR
    expected = torch.cat([part @ w for part, w in zip(gradient_64.split(counts), weight_64, strict=True)])
    rows = blockwise.quantise_routed(gradient, plan, 1)
    result = blockwise.multiply_rows(rows, quantised[2:], plan, output_dtype=torch.float32)
    assert relative_error(result[is_used], expected) < TENSOR_CORE_ERROR


@needs_hopper
@pytest.mark.parametrize(("counts", "out_features", "in_features"), ROUTINGS)
def test_grouped_gradients_of_weights(counts: list[int], out_features: int, in_features: int) -> None:
    order, offsets, plan = plan_of(counts)
    tokens = torch.randn(sum(counts), in_features, device="cuda", dtype=torch.bfloat16)
    gradient = torch.randn(sum(counts), out_features, device="cuda", dtype=torch.bfloat16)
    pairs = [emulation.quantise_grouped_128x1(tensor[order], offsets) for tensor in (gradient, tokens)]
    whole = [emulation.dequantise_grouped_128x1(pair, offsets).double().split(counts) for pair in pairs]
    expected = torch.stack([g.mT @ r for g, r in zip(*whole, strict=True)])
    gradients, rows = (blockwise.quantise_routed(tensor, plan, 1) for tensor in (gradient, tokens))
    for dtype, error in ((torch.float32, TENSOR_CORE_ERROR), (torch.bfloat16, 3e-3)):
        result = blockwise.multiply_tokens(gradients, rows[2:], plan, dtype)
        assert relative_error(result, expected) < error
        squares = blockwise.squares_of(result)
        assert squares is not None
        assert squares.double().sum().item() == pytest.approx(expected.square().sum().item(), rel=1e-3)
        assert blockwise.squares_of(result.clone()) is None
        for expert, count in enumerate(counts):
            assert count or not result[expert].any()


def activated(gate_up: Tensor, weights: Tensor) -> Tensor:
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate) * up * weights[:, None]


@needs_hopper
@pytest.mark.parametrize(("width", "is_routed"), [(128, True), (384, True), (208, True), (128, False), (384, False)])
def test_swiglu_is_quantised_as_it_is_computed(width: int, is_routed: bool) -> None:
    order, _, plan = plan_of([20, 0, 130, 300])
    gates = torch.rand(450, device="cuda")
    is_used = plan.choices >= 0 if is_routed else torch.ones(450, dtype=torch.bool, device="cuda")
    gate_up = torch.randn(len(is_used), 2 * width, device="cuda", dtype=torch.bfloat16)
    gradient = torch.randn(len(is_used), width, device="cuda", dtype=torch.bfloat16)
    inputs = gate_up[is_used].float().requires_grad_()
    weights = (gates[order] if is_routed else torch.ones_like(gates)).requires_grad_()
    expected = activated(inputs, weights)
    expected.backward(gradient[is_used].float())
    # What carries out no choice may hold anything.
    gate_up[~is_used], gradient[~is_used] = float("nan"), float("nan")

    arguments = (gates, plan, Scaling.BLOCKWISE) if is_routed else ()
    activation = blockwise if width % BLOCK == 0 else unaligned_swiglu
    hidden = activation.swiglu(gate_up, *arguments)
    of_gate_up, of_gates = activation.swiglu_backward(gradient, gate_up, *arguments)
    for mine, exact in ((hidden, expected.detach()), (of_gate_up, inputs.grad)):
        spread = mine.scales.mT[: len(is_used)].repeat_interleave(BLOCK, dim=1)[:, : exact.shape[1]]
        across = mine.values[: len(is_used)].float() * spread
        # Exponentials differ in their last bits, and a number that lies between two is then rounded elsewhere.
        assert (across[is_used] - exact).norm() < 1.02 * (
            emulation.dequantise(emulation.quantise_1x128(exact), (1, BLOCK)) - exact
        ).norm()
        along = along_tokens(mine).float() * mine.transposed_scales[:, : exact.shape[1]].repeat_interleave(BLOCK, dim=0)
        assert relative_error(along[: len(is_used)][is_used], exact.double()) < 0.1
    if is_routed:
        assert relative_error(of_gates[order], weights.grad.double()) < 1e-5


@needs_hopper
def test_products_are_the_same_compiled() -> None:
    def layer(x: Tensor, weight: Tensor) -> Tensor:
        return blockwise.multiply_rows(blockwise.quantise(x * 2), blockwise.quantise_weight(weight)[:2]) + 1

    x, weight = numbers(256, 256), torch.randn(128, 256, device="cuda")
    assert torch.equal(torch.compile(layer, fullgraph=True)(x, weight), layer(x, weight))
