"""Blockwise quantisation, against torchao's references, and its products, against float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightning_modules.precision import emulation
from lightning_modules.precision.emulation import (
    E4M3,
    Quantised,
    dequantise,
    dequantise_grouped_128x1,
    quantise_1x128,
    quantise_128x1,
    quantise_128x128,
    quantise_grouped_128x1,
)

QUANTISERS = {(1, 128): quantise_1x128, (128, 1): quantise_128x1, (128, 128): quantise_128x128}
# Half the distance between two neighbours, three bits of mantissa apart.
E4M3_RELATIVE_ERROR = 2.0**-4
sides = st.integers(1, 300)


def random(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator) * torch.rand(*shape, generator=generator).exp()


def spread(*shape: int, dim: int, seed: int = 0) -> Tensor:
    """Random numbers whose size changes by factors of up to 10⁶ from one place along `dim` to the next."""
    sizes = 10 ** (12 * torch.rand(shape[dim], generator=torch.Generator().manual_seed(seed + 1)) - 6)
    return random(*shape, seed=seed) * sizes.reshape([-1 if d == dim % len(shape) else 1 for d in range(len(shape))])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("block", "reference"),
    [
        ((1, 128), "torch_blockwise_scale_act_quant_lhs"),
        ((128, 1), "torch_blockwise_scale_act_quant_rhs"),
        ((128, 128), "torch_blockwise_scale_weight_quant"),
    ],
)
def test_quantises_as_torchao_bit_for_bit(block: tuple[int, int], reference: str, dtype: torch.dtype) -> None:
    torchao = pytest.importorskip("torchao.prototype.blockwise_fp8_training.kernels")
    x = spread(256, 384, dim=0).to(dtype)
    values, scales = QUANTISERS[block](x)
    their_values, their_scales = getattr(torchao, reference)(x)
    assert values.dtype == E4M3
    assert torch.equal(values.float(), their_values.float())
    assert torch.equal(scales, their_scales)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(list(QUANTISERS)), sides, sides, st.integers(0, 99))
def test_every_number_of_partial_blocks_stays_within_half_a_step(
    block: tuple[int, int], n_rows: int, n_columns: int, seed: int
) -> None:
    x = random(2, n_rows, n_columns, seed=seed)
    quantised = QUANTISERS[block](x)
    rows, columns = block
    assert quantised.values.shape == x.shape
    assert quantised.scales.shape == (2, -(-n_rows // rows), -(-n_columns // columns))
    back = dequantise(quantised, block)
    # Below the block's smallest normal number, steps are as wide as there.
    smallest = quantised.scales * torch.finfo(E4M3).tiny
    smallest = dequantise(Quantised(torch.ones_like(x, dtype=E4M3), smallest), block)
    assert ((back - x).abs() <= E4M3_RELATIVE_ERROR * torch.maximum(x.abs(), smallest) * (1 + 1e-5)).all()
    assert torch.equal(dequantise(QUANTISERS[block](x[1]), block), back[1])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 300), min_size=1, max_size=5).filter(sum), sides, st.integers(0, 99))
def test_tiles_begin_anew_with_each_expert(counts: list[int], n_columns: int, seed: int) -> None:
    rows = spread(sum(counts), n_columns, dim=0, seed=seed)
    offsets = torch.tensor(counts).cumsum(0).to(torch.int32)
    quantised = quantise_grouped_128x1(rows, offsets)
    assert quantised.scales.shape == (sum(counts) // 128 + len(counts), n_columns)
    back = dequantise_grouped_128x1(quantised, offsets)
    alone = [quantise_128x1(part) for part in rows.split(counts)]
    assert torch.equal(back, torch.cat([dequantise(q, (128, 1)) for q in alone]))
    scales = torch.cat([q.scales for q in alone])
    assert torch.equal(quantised.scales[: len(scales)], scales)
    assert (quantised.scales[len(scales) :] == 1).all()


def test_zeros_stay_zero_and_nothing_infinite_hides() -> None:
    x = torch.zeros(4, 128)
    assert torch.equal(dequantise(quantise_1x128(x), (1, 128)), x)
    x[0, 3], x[1, 5], x[2, 7] = float("inf"), float("nan"), 1e-20
    back = dequantise(quantise_1x128(x), (1, 128))
    assert not back[0, 3].isfinite()
    assert back[1, 5].isnan()
    assert back[2, 7] == pytest.approx(1e-20, rel=E4M3_RELATIVE_ERROR)


def row_errors(actual: Tensor, expected: Tensor) -> float:
    """The worst relative error of a row, in the Euclidean norm."""
    return float(((actual.double() - expected).norm(dim=-1) / expected.norm(dim=-1)).max())


# Both operands are off by about 0.026 of themselves, a product by √2 times that: 0.037, and the worst of rows by more.
PRODUCT_ERROR = 0.055


class TestProducts:
    """Each with rows, or columns, of very different sizes: tiles across them would lose the small ones altogether."""

    def test_forward(self) -> None:
        x, weight = spread(200, 300, dim=0), random(180, 300, seed=2)
        y = emulation.linear_forward(quantise_1x128(x), quantise_128x128(weight), torch.float32)
        assert row_errors(y, x.double() @ weight.double().T) < PRODUCT_ERROR
        wrong = dequantise(quantise_128x1(x), (128, 1)) @ weight.T
        assert row_errors(wrong, x.double() @ weight.double().T) > 0.5

    def test_grad_input(self) -> None:
        gradient, weight = spread(200, 180, dim=0), random(180, 300, seed=2)
        dx = emulation.linear_grad_input(quantise_1x128(gradient), quantise_128x128(weight), torch.float32)
        assert row_errors(dx, gradient.double() @ weight.double()) < PRODUCT_ERROR

    def test_grad_weight(self) -> None:
        gradient, x = random(200, 180), spread(200, 300, dim=1, seed=2)
        expected = gradient.double().T @ x.double()
        dw = emulation.linear_grad_weight(quantise_128x1(gradient), quantise_128x1(x))
        assert row_errors(dw.T, expected.T) < PRODUCT_ERROR
        transposed = emulation.linear_grad_weight(quantise_128x1(x), quantise_128x1(gradient))
        assert row_errors(transposed, expected.T) < PRODUCT_ERROR
        wrong = gradient.T @ dequantise(quantise_1x128(x), (1, 128))
        assert row_errors(wrong.T, expected.T) > 0.5

    def test_a_weight_s_blocks_do_not_share_scales(self) -> None:
        x, weight = random(64, 256), random(256, 256, seed=2)
        weight[:128, :] *= 1e-6
        y = emulation.linear_forward(quantise_1x128(x), quantise_128x128(weight), torch.float32)
        assert row_errors(y.T, (x.double() @ weight.double().T).T) < PRODUCT_ERROR
        wrong = weight / weight.abs().max() * 448
        assert ((wrong.to(E4M3).float() - wrong)[:128].norm() / wrong[:128].norm()) > 0.5  # one scale a tensor


@pytest.mark.parametrize("counts", [[130, 0, 11, 159], [0, 0, 7], [128, 256], [1]])
def test_grouped_products_are_those_of_each_expert(counts: list[int]) -> None:
    n_rows, n_experts = sum(counts), len(counts)
    offsets = torch.tensor(counts).cumsum(0).to(torch.int32)
    rows, gradient, weight = random(n_rows, 201), random(n_rows, 150, seed=1), random(n_experts, 150, 201, seed=2)
    blocks = quantise_128x128(weight)
    y = emulation.grouped_forward(quantise_1x128(rows), blocks, offsets, torch.float32)
    dx = emulation.grouped_grad_input(quantise_1x128(gradient), blocks, offsets, torch.float32)
    tiles = quantise_grouped_128x1(gradient, offsets), quantise_grouped_128x1(rows, offsets)
    dw = emulation.grouped_grad_weight(*tiles, offsets)
    assert y.shape == (n_rows, 150)
    assert dx.shape == rows.shape
    assert dw.shape == weight.shape
    parts = zip(rows.split(counts), gradient.split(counts), y.split(counts), dx.split(counts), strict=True)
    for e, (rows_e, gradient_e, y_e, dx_e) in enumerate(parts):
        block = quantise_128x128(weight[e])
        assert_close(y_e, emulation.linear_forward(quantise_1x128(rows_e), block, torch.float32))
        assert_close(dx_e, emulation.linear_grad_input(quantise_1x128(gradient_e), block, torch.float32))
        assert_close(dw[e], emulation.linear_grad_weight(quantise_128x1(gradient_e), quantise_128x1(rows_e)))


def assert_close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-4)
