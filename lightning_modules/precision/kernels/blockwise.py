"""Blockwise FP8 on Hopper: what `precision.emulation` computes, on the tensor cores.

Whatever is quantised is read once and written in both layouts that products want (`BothLayouts`). Rows that belong to
experts are laid out in whole tiles of 128, none of which holds rows of two (`Plan`); how many there are does not depend
on the routing, so no host has to know it. Each function is one operation of the library `melisma`, so that
torch.compile leaves it alone and a recompute policy can name it.

Shapes: M rows of activations, K features in, N features out, R routed rows, E experts; ⌈a⌉ is ceil(a / 128). P rows are
stored: 128 · ⌈M⌉, or 128 · (⌊R / 128⌋ + E), which suffices for any division of R rows among E experts.
"""

import importlib.util
from functools import cache

import torch
from torch import Tensor

from lightning_modules.precision.emulation import Quantised
from lightning_modules.precision.kernels.layouts import BothLayouts, Copy, Plan
from lightning_modules.precision.kernels.operations import launch, n_sums
from lightning_modules.precision.scaling import Scaling
from lightning_modules.precision.traced_constant import traced_constant

# Operands travel to the tensor cores in lines whose length is a multiple of 16 bytes.
ALIGNMENT = 16


@traced_constant
def available(device: torch.device | str) -> bool:
    """Whether `device` is a Hopper GPU (compute capability 9.0) on which Triton is installed."""
    return _is_hopper(torch.device(device))


@cache
def _is_hopper(device: torch.device) -> bool:
    if device.type != "cuda" or not torch.cuda.is_available() or torch.version.cuda is None:
        return False
    return torch.cuda.get_device_capability(device) == (9, 0) and importlib.util.find_spec("triton") is not None


def fits(out_features: int, in_features: int) -> bool:
    """Whether a weight of these sides can be multiplied here; others are left to the emulation."""
    return out_features % ALIGNMENT == 0 and in_features % ALIGNMENT == 0


def plan_choices(indices: Tensor, n_experts: int, room: int | None = None) -> Plan:
    """Lay out the choices of tokens by the experts `indices` [N, K] they chose; an expert may have none.

    Choices below zero are of no expert. There is a place for `room` of the others, however they divide; None: for all.
    """
    return Plan(*torch.ops.melisma_fp8.plan_choices(indices, n_experts, indices.numel() if room is None else room))


def plan_rows(offsets: Tensor, n_rows: int) -> Plan:
    """Lay out rows that are in order of experts already: each is a choice of its own.

    Args:
        offsets: [E] int32, where each expert's rows end; an expert may have none.
        n_rows: R; the last of `offsets` may be less, and what lies behind it is nobody's.
    """
    return Plan(*torch.ops.melisma_fp8.plan_rows(offsets, n_rows))


def quantise(x: Tensor, scaling: Scaling = Scaling.BLOCKWISE) -> BothLayouts:
    """Quantise `x` [M, K]; rows from M to P are zeros."""
    return BothLayouts(*torch.ops.melisma_fp8.quantise_rows(x, None, 1, scaling.value))


def quantise_routed(tokens: Tensor, plan: Plan, n_chosen: int, scaling: Scaling = Scaling.BLOCKWISE) -> BothLayouts:
    """Gather the tokens [N, K] of every choice, number c being token c // n_chosen's, and quantise them as planned."""
    return BothLayouts(*torch.ops.melisma_fp8.quantise_rows(tokens, plan.choices, n_chosen, scaling.value))


def quantise_1x128(x: Tensor) -> Quantised:
    """Quantise `x` [M, K] in tiles of 128 along K alone; scales [M, ⌈K⌉]."""
    return Quantised(*torch.ops.melisma_fp8.quantise_1x128(x))


def quantise_weight(weight: Tensor, scaling: Scaling = Scaling.BLOCKWISE) -> BothLayouts:
    """Quantise `weight` [(E,) N, K] in square blocks."""
    return BothLayouts(*torch.ops.melisma_fp8.quantise_weight(weight, scaling.value))


def quantise_weight_into(weight: Tensor, copy: Copy) -> None:
    """`quantise_weight`, where there is room already."""
    launch().quantise_blocks(weight, *copy.layouts, copy.scaling)


def multiply_rows(
    rows: BothLayouts,
    weight: tuple[Tensor, Tensor],
    plan: Plan | None = None,
    n_rows: int | None = None,
    output_dtype: torch.dtype = torch.bfloat16,
) -> Tensor:
    """Every row times the transpose of its expert's weight.

    Args:
        rows: [P, K].
        weight: values [(E,) N, K] and scales [(E,) ⌈N⌉, ⌈K⌉].
        plan: whose rows they are; None: there is one weight.
        n_rows: how many rows of the product are wanted; None: P.
        output_dtype: of the result.

    Returns:
        [n_rows, N]; rows that carry out no choice hold anything.
    """
    experts = None if plan is None else plan.experts
    n_rows = rows.values.shape[0] if n_rows is None else n_rows
    return torch.ops.melisma_fp8.multiply_rows(rows.values, rows.scales, *weight, experts, n_rows, output_dtype)


def multiply_tokens(
    gradient: BothLayouts, rows: tuple[Tensor, Tensor], plan: Plan, output_dtype: torch.dtype = torch.bfloat16
) -> Tensor:
    """Every expert's gradients, transposed, times its rows: [E, N, K], zero for one without rows.

    Args:
        gradient: [P, N], routed as planned.
        rows: [P, K], routed alike: `transposed` and `transposed_scales`.
        plan: whose rows they are.
        output_dtype: of the result.
    """
    operands = gradient.transposed, gradient.transposed_scales, *rows
    return torch.ops.melisma_fp8.multiply_tokens(*operands, plan.spans, output_dtype)


def squares_of(product: Tensor) -> Tensor | None:
    """Numbers in FP32 that add up to the sum of the squares of what `multiply_tokens` returned.

    They lie behind the product in its memory, and hold while nobody has changed it in place: whoever needs its norm
    need not read it again. None of another tensor, though it be a copy.
    """
    if not available(product.device):
        return None
    memory, count = product.untyped_storage(), n_sums(product.device)
    if product.storage_offset() or memory.nbytes() != product.nbytes + count * torch.float32.itemsize:
        return None
    sums = torch.empty(0, dtype=torch.float32, device=product.device)
    return sums.set_(memory, product.nbytes // torch.float32.itemsize, (count,), (1,))


def multiply_plain_tokens(
    gradient: BothLayouts, rows: tuple[Tensor, Tensor], output_dtype: torch.dtype = torch.bfloat16
) -> Tensor:
    """`multiply_tokens` without experts, [N, K], by cuBLAS: it divides a small product among all multiprocessors."""
    operands = gradient.transposed, gradient.transposed_scales, *rows
    return torch.ops.melisma_fp8.multiply_plain_tokens(*operands, output_dtype)


def swiglu(
    gate_up: Tensor,
    gates: Tensor | None = None,
    plan: Plan | None = None,
    scaling: Scaling = Scaling.BLOCKWISE,
) -> BothLayouts:
    """Quantise silu(gate) · up [P, I], times what each row counts; I is a multiple of 128.

    Args:
        gate_up: [P, 2I], or [M, 2I] without a plan: the gates' half first.
        gates: [R] FP32, what every choice counts; None: all once.
        plan: of the rows; none where there are no gates.
        scaling: what shares one scale.
    """
    choices = None if plan is None else plan.choices
    return BothLayouts(*torch.ops.melisma_fp8.swiglu(gate_up, gates, choices, scaling.value))


def swiglu_backward(
    gradient: Tensor,
    gate_up: Tensor,
    gates: Tensor | None = None,
    plan: Plan | None = None,
    scaling: Scaling = Scaling.BLOCKWISE,
) -> tuple[BothLayouts, Tensor]:
    """The gradient of `gate_up`, quantised, and that of `gates`, if there are any, from `gradient` [P, I]."""
    choices = None if plan is None else plan.choices
    *quantised, of_rows = torch.ops.melisma_fp8.swiglu_backward(gradient, gate_up, gates, choices, scaling.value)
    of_gates = of_rows if gates is None or plan is None else of_choices(of_rows.sum(dim=0), plan).view_as(gates)
    return BothLayouts(*quantised), of_gates


def of_choices(of_rows: Tensor, plan: Plan) -> Tensor:
    """What belongs to the rows [P] as what belongs to choices [R], zero for those that no row carries out."""
    return torch.where(plan.places >= 0, of_rows[plan.places.clamp_min(0)], 0.0)
