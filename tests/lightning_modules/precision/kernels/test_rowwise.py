"""Kernels by rows: whole rows and columns of experts' tokens share a power of two, and products need not apply it."""

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from lightning_modules.precision.emulation import BLOCK, E4M3, E4M3_MAX
from lightning_modules.precision.kernels import blockwise
from lightning_modules.precision.kernels.layouts import BothLayouts, Plan
from lightning_modules.precision.scaling import Scaling
from tests.lightning_modules.precision.kernels.blockwise_cases import (
    ROUTINGS,
    along_tokens,
    needs_hopper,
    numbers,
    plan_of,
    relative_error,
)

# The tensor cores add up a whole row in fewer than FP32's 23 bits; over 2,048 numbers that was off by 9e-4.
TENSOR_CORE_ERROR = 2e-3


def by_powers_of_two(x: Tensor, dim: int) -> Tensor:
    """The numbers that `x` is rounded to where all along `dim` share a power of two."""
    amax = x.double().abs().amax(dim, keepdim=True).clamp_min(1e-30)
    factor = torch.exp2(torch.floor(torch.log2(E4M3_MAX / amax)))
    return (x.double() * factor).float().to(E4M3).double() / factor


def back(quantised: BothLayouts, plan: Plan) -> tuple[Tensor, Tensor]:
    """What the rows that carry out choices stand for: rounded as rows, and as columns."""
    is_used = plan.choices >= 0
    rows = quantised.values.double() * quantised.scales[0, :, None]
    columns = along_tokens(quantised).double() * quantised.transposed_scales[0, : rows.shape[1]]
    return rows[is_used], columns[is_used]


def weight_back(values: Tensor, scales: Tensor) -> Tensor:
    spread = scales.repeat_interleave(BLOCK, -2)[..., : values.shape[-2], :]
    return values.double() * spread.repeat_interleave(BLOCK, -1)[..., : values.shape[-1]]


def test_whole_rows_have_one_scale_and_whole_columns() -> None:
    with FakeTensorMode():
        plan = blockwise.plan_choices(torch.empty(150, 2, dtype=torch.int64), 4)
        rows = blockwise.quantise_routed(torch.empty(150, 64), plan, 2, Scaling.ROWWISE)
        tiles = blockwise.quantise_routed(torch.empty(150, 64), plan, 2)
    assert rows.scales.shape == (1, rows.values.shape[0])
    assert rows.transposed_scales.shape == (1, tiles.transposed_scales.shape[1])


@needs_hopper
@pytest.mark.parametrize(("counts", "n_columns"), [(routing[0], routing[2]) for routing in ROUTINGS])
def test_tokens_are_rounded_by_whole_rows_and_columns(counts: list[int], n_columns: int) -> None:
    order, _, plan = plan_of(counts)
    tokens = numbers(sum(counts), n_columns)
    rows, columns = back(blockwise.quantise_routed(tokens, plan, 1, Scaling.ROWWISE), plan)
    assert torch.equal(rows, by_powers_of_two(tokens[order], 1))
    assert torch.equal(columns, by_powers_of_two(tokens[order], 0))


@needs_hopper
def test_rows_that_are_nobody_s_do_not_count() -> None:
    offsets = torch.tensor([100, 228], dtype=torch.int32, device="cuda")
    rows = torch.randn(300, 256, device="cuda")
    rows[228:] = float("nan")
    plan = blockwise.plan_rows(offsets, 300)
    whole, columns = back(blockwise.quantise_routed(rows, plan, 1, Scaling.ROWWISE), plan)
    assert torch.equal(whole, by_powers_of_two(rows[:228], 1))
    assert torch.equal(columns, by_powers_of_two(rows[:228], 0))


@needs_hopper
def test_tokens_of_several_experts_are_looked_at_once() -> None:
    tokens, indices = numbers(200, 256), torch.randint(0, 4, (200, 2), device="cuda")
    plan = blockwise.plan_choices(indices, 4)
    rows, columns = back(blockwise.quantise_routed(tokens, plan, 2, Scaling.ROWWISE), plan)
    of_rows = plan.choices[plan.choices >= 0].long() // 2
    assert torch.equal(rows, by_powers_of_two(tokens, 1)[of_rows])
    assert torch.equal(columns, by_powers_of_two(tokens, 0)[of_rows])


@needs_hopper
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_no_number_stays_visible(bad: float) -> None:
    _, _, plan = plan_of([100, 28])
    tokens = torch.randn(128, 256, device="cuda")
    tokens[2, 130] = bad
    quantised = blockwise.quantise_routed(tokens, plan, 1, Scaling.ROWWISE)
    rows, columns = back(quantised, plan)
    assert rows.isnan().any()
    assert columns.isnan().any()


@needs_hopper
@pytest.mark.parametrize(("counts", "out_features", "in_features"), ROUTINGS)
def test_products_over_features_add_up_whole_rows(counts: list[int], out_features: int, in_features: int) -> None:
    _, _, plan = plan_of(counts)
    tokens = numbers(sum(counts), in_features)
    # Blocks far apart in size have scales of their own, and the sum is brought from one to the next.
    sizes = torch.logspace(-6, 2, in_features, device="cuda")
    weight = torch.randn(len(counts), out_features, in_features, device="cuda") * sizes
    rows, quantised = (
        blockwise.quantise_routed(tokens, plan, 1, Scaling.ROWWISE),
        blockwise.quantise_weight(weight, Scaling.ROWWISE),
    )
    whole = weight_back(*quantised[:2])
    # E4M3 keeps four bits: no number is off by more than a sixteenth of itself.
    assert relative_error(whole, weight.double()) < 2**-4
    expected = torch.cat([part @ w.mT for part, w in zip(back(rows, plan)[0].split(counts), whole, strict=True)])
    y = blockwise.multiply_rows(rows, quantised[:2], plan, output_dtype=torch.float32)
    assert relative_error(y[plan.choices >= 0], expected) < TENSOR_CORE_ERROR


@needs_hopper
@pytest.mark.parametrize("whole", [(True, False), (False, True), (True, True)])
@pytest.mark.parametrize(("counts", "out_features", "in_features"), ROUTINGS)
def test_products_over_tokens_need_no_factor_of_whole_columns(
    counts: list[int], out_features: int, in_features: int, whole: tuple[bool, bool]
) -> None:
    order, _, plan = plan_of(counts)
    operands, exact = [], []
    for n_columns, is_whole in zip((out_features, in_features), whole, strict=True):
        tokens = torch.randn(sum(counts), n_columns, device="cuda", dtype=torch.bfloat16)
        scaling = Scaling.ROWWISE if is_whole else Scaling.BLOCKWISE
        operands.append(blockwise.quantise_routed(tokens, plan, 1, scaling))
        exact.append(tokens[order].double().split(counts))
    expected = torch.stack([gradient.mT @ rows for gradient, rows in zip(*exact, strict=True)])
    for dtype in (torch.float32, torch.bfloat16):
        result = blockwise.multiply_tokens(operands[0], operands[1][2:], plan, dtype)
        # Rounding to three places is off by as much; a factor forgotten, by powers of two.
        assert (result.double() - expected).norm() < 0.05 * expected.norm()
        for expert, count in enumerate(counts):
            assert count or not result[expert].any()
