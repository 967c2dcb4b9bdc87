"""The kernels against the emulation and float64 where there is a Hopper GPU; elsewhere, what can be known without."""

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from lightning_modules.precision import emulation
from lightning_modules.precision.emulation import BLOCK, Quantised
from lightning_modules.precision.kernels import blockwise

HOPPER = torch.cuda.is_available() and blockwise.available("cuda")
needs_hopper = pytest.mark.skipif(not HOPPER, reason="needs a Hopper GPU (compute capability 9.0)")

# Rows of each expert, features out, features in.
ROUTINGS = [
    ([256, 256], 256, 256),
    ([20, 0, 130], 176, 208),
    ([0, 0, 5, 0], 128, 576),
    ([1000, 24, 0, 3, 700, 129, 128, 1], 384, 192),
    ([0, 300, 0], 2048, 768),
]
# Rows, features out, features in; the odd one is not for cuBLAS.
LAYERS = [(256, 256, 256), (4096, 2048, 768), (1000, 576, 2048), (999, 512, 576), (7, 16, 16)]
# The tensor cores add up 128 FP8 products in fewer than FP32's 23 bits (arXiv 2412.19437, section 3.5.2).
TENSOR_CORE_ERROR = 3e-4


def numbers(n_rows: int, n_columns: int, device: str = "cuda", dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """Rows of magnitudes far apart, one of them zero."""
    x = torch.randn(n_rows, n_columns, device=device) * torch.logspace(-8, 8, n_rows, device=device)[:, None]
    x[n_rows // 2] = 0
    return x.to(dtype)


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Of rows' errors relative to their own size, the largest, so that large rows do not hide small ones."""
    difference = (actual.double() - expected).norm(dim=-1) / expected.norm(dim=-1).clamp_min(1e-300)
    return difference.max().item()


def assert_same(actual: Tensor, expected: Tensor) -> None:
    assert torch.equal(actual.float(), expected.float())


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
        across, along = blockwise.quantise_1x128(x), blockwise.quantise_128x1(x)
        square = blockwise.quantise_128x128(torch.empty(3, n_rows, n_columns))
    row_tiles = -(-n_rows // BLOCK)
    assert across.values.shape == (n_rows, n_columns)
    assert across.scales.shape == emulation.quantise_1x128(real).scales.shape
    assert across.scales.stride(0) == 1  # as scaled_mm wants it
    assert along.values.shape == (row_tiles * BLOCK, n_columns)
    assert along.values.stride(0) == 1
    assert along.scales.shape == emulation.quantise_128x1(real).scales.shape
    assert square.scales.shape == emulation.quantise_128x128(torch.randn(3, n_rows, n_columns)).scales.shape


@pytest.mark.parametrize("output_dtype", [torch.bfloat16, torch.float32])
def test_products_shapes_are_known_beforehand(output_dtype: torch.dtype) -> None:
    with FakeTensorMode():
        rows, gradient = torch.empty(300, 64), torch.empty(300, 96)
        weight, offsets = torch.empty(4, 96, 64), torch.empty(4, dtype=torch.int32)
        tiles = blockwise.quantise_grouped_128x1(rows, offsets), blockwise.quantise_grouped_128x1(gradient, offsets)
        rows_q, gradient_q = blockwise.quantise_1x128(rows), blockwise.quantise_1x128(gradient)
        stack = blockwise.quantise_128x128(weight)
        one = Quantised(stack.values[0], stack.scales[0])
        along = blockwise.quantise_128x1(gradient), blockwise.quantise_128x1(rows)
        results = {
            (300, 96): [
                blockwise.grouped_forward(rows_q, stack, offsets, output_dtype),
                blockwise.linear_forward(rows_q, one, output_dtype),
            ],
            (300, 64): [
                blockwise.grouped_grad_input(gradient_q, stack, offsets, output_dtype),
                blockwise.linear_grad_input(gradient_q, one, output_dtype),
            ],
            (4, 96, 64): [blockwise.grouped_grad_weight(tiles[1], tiles[0], offsets, output_dtype)],
            (96, 64): [blockwise.linear_grad_weight(*along, output_dtype)],
        }
    assert tiles[0].scales.shape == (300 // BLOCK + 4, 64)
    for shape, tensors in results.items():
        for tensor in tensors:
            assert tensor.shape == shape
            assert tensor.dtype == output_dtype


@needs_hopper
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(("n_rows", "n_columns"), [(256, 256), (150, 208), (1, 128), (1000, 576), (7, 16)])
def test_quantised_as_by_the_emulation(n_rows: int, n_columns: int, dtype: torch.dtype) -> None:
    x = numbers(n_rows, n_columns, dtype=dtype)
    for mine, reference in zip(blockwise.quantise_1x128(x), emulation.quantise_1x128(x), strict=True):
        assert_same(mine, reference)
    along, reference_along = blockwise.quantise_128x1(x), emulation.quantise_128x1(x)
    assert_same(along.values[:n_rows], reference_along.values)
    assert not along.values[n_rows:].float().any()
    assert_same(along.scales, reference_along.scales)
    transposed = blockwise.quantise_128x128(x.mT)
    for mine, back, reference in zip(
        blockwise.quantise_128x128(x), transposed, emulation.quantise_128x128(x), strict=True
    ):
        assert_same(mine, reference)
        assert_same(back.mT, reference)


@needs_hopper
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["quantise_1x128", "quantise_128x1", "quantise_128x128"])
def test_what_is_no_number_stays_visible(name: str, bad: float) -> None:
    x = torch.randn(128, 256, device="cuda")
    x[2, 130] = bad
    mine, reference = getattr(blockwise, name)(x), getattr(emulation, name)(x)
    assert reference.values.float().isnan().any()
    assert torch.equal(mine.values.float().isnan(), reference.values.float().isnan())


@needs_hopper
@pytest.mark.parametrize(("n_rows", "out_features", "in_features"), LAYERS)
def test_linear_products(n_rows: int, out_features: int, in_features: int) -> None:
    x, gradient = numbers(n_rows, in_features), numbers(n_rows, out_features)
    weight = 0.02 * torch.randn(out_features, in_features, device="cuda")
    x_64 = emulation.dequantise(emulation.quantise_1x128(x), (1, BLOCK), torch.float64)
    gradient_64 = emulation.dequantise(emulation.quantise_1x128(gradient), (1, BLOCK), torch.float64)
    weight_64 = emulation.dequantise(emulation.quantise_128x128(weight), (BLOCK, BLOCK), torch.float64)
    x_q, gradient_q = blockwise.quantise_1x128(x), blockwise.quantise_1x128(gradient)
    transposed = blockwise.quantise_128x128(weight.mT)
    weight_q = blockwise.quantise_128x128(weight)

    y = blockwise.linear_forward(x_q, weight_q, torch.float32)
    assert relative_error(y, x_64 @ weight_64.mT) < TENSOR_CORE_ERROR
    for operand in (weight_q, Quantised(transposed.values.mT, transposed.scales.mT)):
        grad_input = blockwise.linear_grad_input(gradient_q, operand, torch.float32)
        assert relative_error(grad_input, gradient_64 @ weight_64) < TENSOR_CORE_ERROR

    # Of like magnitudes, for the product sums over rows.
    x, gradient = x.sign() * torch.rand_like(x), gradient.sign() * torch.rand_like(gradient)
    expected = emulation.dequantise(emulation.quantise_128x1(gradient), (BLOCK, 1), torch.float64).mT
    expected = expected @ emulation.dequantise(emulation.quantise_128x1(x), (BLOCK, 1), torch.float64)
    for dtype, error in ((torch.float32, TENSOR_CORE_ERROR), (torch.bfloat16, 3e-3)):
        result = blockwise.linear_grad_weight(blockwise.quantise_128x1(gradient), blockwise.quantise_128x1(x), dtype)
        assert relative_error(result, expected) < error


@needs_hopper
@pytest.mark.parametrize(("counts", "out_features", "in_features"), ROUTINGS)
def test_grouped_products(counts: list[int], out_features: int, in_features: int) -> None:
    offsets = torch.tensor(counts, device="cuda").cumsum(0).to(torch.int32)
    rows, gradient = numbers(sum(counts), in_features), numbers(sum(counts), out_features)
    weight = 0.02 * torch.randn(len(counts), out_features, in_features, device="cuda")
    weight_64 = emulation.dequantise(emulation.quantise_128x128(weight), (BLOCK, BLOCK), torch.float64)
    rows_64 = emulation.dequantise(emulation.quantise_1x128(rows), (1, BLOCK), torch.float64)
    gradient_64 = emulation.dequantise(emulation.quantise_1x128(gradient), (1, BLOCK), torch.float64)
    weight_q, transposed = blockwise.quantise_128x128(weight), blockwise.quantise_128x128(weight.mT)

    expected = torch.cat([part @ w.mT for part, w in zip(rows_64.split(counts), weight_64, strict=True)])
    y = blockwise.grouped_forward(blockwise.quantise_1x128(rows), weight_q, offsets, torch.float32)
    assert relative_error(y, expected) < TENSOR_CORE_ERROR
    expected = torch.cat([part @ w for part, w in zip(gradient_64.split(counts), weight_64, strict=True)])
    for operand in (weight_q, Quantised(transposed.values.mT, transposed.scales.mT)):
        result = blockwise.grouped_grad_input(blockwise.quantise_1x128(gradient), operand, offsets, torch.float32)
        assert relative_error(result, expected) < TENSOR_CORE_ERROR


@needs_hopper
@pytest.mark.parametrize(("counts", "out_features", "in_features"), ROUTINGS)
def test_grouped_gradients_of_weights(counts: list[int], out_features: int, in_features: int) -> None:
    offsets = torch.tensor(counts, device="cuda").cumsum(0).to(torch.int32)
    rows = torch.randn(sum(counts), in_features, device="cuda", dtype=torch.bfloat16)
    gradient = torch.randn(sum(counts), out_features, device="cuda", dtype=torch.bfloat16)
    tiles = blockwise.quantise_grouped_128x1(gradient, offsets), blockwise.quantise_grouped_128x1(rows, offsets)
    pairs = [emulation.quantise_grouped_128x1(tensor, offsets) for tensor in (gradient, rows)]
    for mine, reference in zip(tiles, pairs, strict=True):
        assert_same(mine.scales, reference.scales)
    whole = [emulation.dequantise_grouped_128x1(pair, offsets).double().split(counts) for pair in pairs]
    expected = torch.stack([g.mT @ r for g, r in zip(*whole, strict=True)])
    for dtype, error in ((torch.float32, TENSOR_CORE_ERROR), (torch.bfloat16, 3e-3)):
        result = blockwise.grouped_grad_weight(*tiles, offsets, dtype)
        assert relative_error(result, expected) < error
        for expert, count in enumerate(counts):
            assert count or not result[expert].any()


@needs_hopper
def test_products_are_the_same_compiled() -> None:
    def layer(x: Tensor, weight: Tensor) -> Tensor:
        return blockwise.linear_forward(blockwise.quantise_1x128(x * 2), blockwise.quantise_128x128(weight)) + 1

    x, weight = numbers(256, 256), torch.randn(128, 256, device="cuda")
    assert torch.equal(torch.compile(layer, fullgraph=True)(x, weight), layer(x, weight))
