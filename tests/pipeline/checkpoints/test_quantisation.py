import math
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightning_modules.precision.emulation import E4M3
from pipeline.checkpoints.quantisation import FP8_RELATIVE_ERROR, FP8_SMALLEST_ERROR, RoundingLog, retype
from pipeline.checkpoints.slices import chunks
from pipeline.checkpoints.stored_tensor import StoredTensor

LINEAR = "model.layers.0.self_attn.o_proj.weight"
NORM = "model.layers.0.input_layernorm.weight"
BIAS = "model.layers.1.mlp.gate.e_score_correction_bias"


def stored(tensor: Tensor) -> StoredTensor:
    read_rows = partial(lambda start, stop: tensor[start:stop].clone())
    return StoredTensor(tuple(tensor.shape), tensor.dtype, Path("file"), tensor.clone, read_rows=read_rows)


def dequantised(quantised: StoredTensor) -> tuple[Tensor, Tensor]:
    """Numbers and the factor of each, by the published rule: pad, multiply block by block."""
    assert quantised.scale is not None
    n_rows, n_columns = quantised.shape
    spread = quantised.scale.read().repeat_interleave(128, 0).repeat_interleave(128, 1)[:n_rows, :n_columns]
    return quantised.read().float() * spread, spread


@settings(max_examples=12, deadline=None)
@given(
    n_rows=st.integers(1, 300),
    n_columns=st.integers(1, 300),
    magnitude=st.floats(1e-12, 1e12),
    spread=st.floats(0, 12),
    dtype=st.sampled_from([torch.bfloat16, torch.float32]),
)
def test_fp8_moves_a_weight_by_no_more_than_stated(
    n_rows: int, n_columns: int, magnitude: float, spread: float, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(n_rows * 1000 + n_columns)
    exact = torch.randn(n_rows, n_columns, generator=generator)
    exact = (exact * magnitude * torch.exp(-spread * torch.rand(n_rows, n_columns, generator=generator))).to(dtype)
    log = RoundingLog()
    quantised = retype({LINEAR: stored(exact)}, "fp8", log)[LINEAR]
    assert quantised.dtype == E4M3
    assert quantised.scale is not None
    assert quantised.scale.shape == (math.ceil(n_rows / 128), math.ceil(n_columns / 128))
    numbers, factor = dequantised(quantised)
    moved = (numbers - exact.float()).abs()
    # A rounding of FP32 more, in the product and in the factor.
    bound = torch.maximum(exact.float().abs() * FP8_RELATIVE_ERROR, factor * FP8_SMALLEST_ERROR) * (1 + 1e-5)
    assert bool((moved <= bound).all())
    error = log.errors()[LINEAR]
    assert error.max_abs == pytest.approx(float(moved.max()), rel=1e-5)
    assert error.relative_l2 == pytest.approx(float(moved.norm() / exact.float().norm()), rel=1e-4)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_going_back_rounds_the_product_alone(dtype: str) -> None:
    exact = torch.randn(200, 300).bfloat16()
    quantised = retype({LINEAR: stored(exact)}, "fp8", RoundingLog())[LINEAR]
    expected, _ = dequantised(quantised)
    log = RoundingLog()
    back = retype({LINEAR: quantised}, dtype, log)[LINEAR]
    assert back.scale is None
    assert torch.equal(back.read(), expected.to(getattr(torch, dtype)))
    # Rows that begin and end within a block.
    assert back.read_rows is not None
    assert torch.equal(back.read_rows(5, 131), back.read()[5:131])
    assert (LINEAR in log.errors()) == (dtype == "bfloat16")


def test_fp8_stays_as_it_is() -> None:
    quantised = retype({LINEAR: stored(torch.randn(10, 10))}, "fp8", RoundingLog())[LINEAR]
    log = RoundingLog()
    for dtype in ("fp8", "keep"):
        assert retype({LINEAR: quantised}, dtype, log)[LINEAR] is quantised
    assert not log.errors()


def test_projections_alone_become_fp8_and_biases_stay_fp32() -> None:
    tensors = {LINEAR: torch.randn(8, 8), NORM: torch.randn(8), BIAS: torch.randn(8)}
    opened = {name: stored(tensor) for name, tensor in tensors.items()}
    types = {name: tensor.dtype for name, tensor in retype(opened, "fp8", RoundingLog()).items()}
    assert types == {LINEAR: E4M3, NORM: torch.bfloat16, BIAS: torch.float32}
    types = {name: tensor.dtype for name, tensor in retype(opened, "bfloat16", RoundingLog()).items()}
    assert types == {LINEAR: torch.bfloat16, NORM: torch.bfloat16, BIAS: torch.float32}


def test_factors_are_there_before_and_after_the_numbers_are_read() -> None:
    exact = torch.randn(300, 140)
    quantised = retype({LINEAR: stored(exact)}, "fp8", RoundingLog())[LINEAR]
    assert quantised.scale is not None
    before = quantised.scale.read()
    for _ in chunks(quantised, 128 * 140):
        pass
    assert torch.equal(quantised.scale.read(), before)
    assert torch.equal(quantised.scale.read(), before)


def test_what_is_read_twice_counts_once() -> None:
    exact = torch.randn(300, 16)
    log = RoundingLog()
    rounded = retype({NORM: stored(exact)}, "bfloat16", log)[NORM]
    for _ in range(2):
        list(chunks(rounded, 128 * 16))
    error = log.errors()[NORM]
    moved = exact.bfloat16().float() - exact
    assert error.relative_l2 == pytest.approx(float(moved.norm() / exact.norm()), rel=1e-5)
    assert error.max_abs == float(moved.abs().max())


def test_an_error_goes_on_where_another_log_ended() -> None:
    exact = torch.randn(256, 16)
    first, second = RoundingLog(), RoundingLog()
    top, bottom = (chunk for _, chunk in chunks(stored(exact), 128 * 16))
    first.record(NORM, 0, [(top, top.bfloat16().float())])
    second.add(first.take_new())
    assert first.take_new() == []
    second.record(NORM, 128, [(bottom, bottom.bfloat16().float())])
    whole = RoundingLog()
    whole.record(NORM, 0, [(exact, exact.bfloat16().float())])
    assert second.errors()[NORM].relative_l2 == pytest.approx(whole.errors()[NORM].relative_l2, rel=1e-6)
    assert second.errors()[NORM].max_abs == whole.errors()[NORM].max_abs
