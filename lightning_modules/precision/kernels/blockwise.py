"""Blockwise FP8 on Hopper: what `precision.emulation` computes, on the tensor cores.

Whatever is quantised is read once and written in both layouts that products want (`BothLayouts`). Rows that belong to
experts are laid out in whole tiles of 128, none of which holds rows of two (`Plan`); how many there are does not depend
on the routing, so no host has to know it. Each function is one operation of the library `melisma`, so that
torch.compile leaves it alone and a recompute policy can name it.

Shapes: M rows of activations, K features in, N features out, R routed rows, E experts; ⌈a⌉ is ceil(a / 128). P rows are
stored: 128 · ⌈M⌉, or 128 · (⌊R / 128⌋ + E), which suffices for any division of R rows among E experts.
"""

import importlib
import importlib.util
import math
from functools import cache
from types import ModuleType
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.functional import ScalingType

from lightning_modules.precision.emulation import BLOCK, E4M3, Quantised
from lightning_modules.precision.kernels.operation import Operation
from lightning_modules.precision.scaling import Scaling
from lightning_modules.precision.traced_constant import traced_constant

# Operands travel to the tensor cores in lines whose length is a multiple of 16 bytes.
ALIGNMENT = 16


class BothLayouts(NamedTuple):
    """E4M3 numbers and the FP32 scales that give the originals back, for products over either side.

    Attributes:
        values: rows [P, K] in tiles of 1×128, or weights [(E,) N, K] in blocks of 128×128.
        scales: of rows [⌈K⌉, P], or [1, P] if these share one; of weights [(E,) ⌈N⌉, ⌈K⌉].
        transposed: rows [⌈P⌉, K, 128] in tiles of 128×1, or weights [(E,) K, N]: the same numbers as `values`. Tiles
            of experts' rows lie one behind the other, those of plain rows side by side, as the memory of [K, P].
        transposed_scales: of rows [⌈P⌉, K], or [1, K] if all share one, where they are experts' with K padded to a
            multiple of 256; of weights [(E,) ⌈K⌉, ⌈N⌉].
    """

    values: Tensor
    scales: Tensor
    transposed: Tensor
    transposed_scales: Tensor


class Copy(NamedTuple):
    """A weight as it is multiplied.

    Attributes:
        layouts: the numbers.
        scaling: by which they are rounded.
    """

    layouts: BothLayouts
    scaling: Scaling


class Plan(NamedTuple):
    """How routed rows are laid out in tiles of 128 (int32 all).

    Attributes:
        choices: [P] which choice of a token a row carries out; -1: none.
        places: [R] which row carries out a choice; -1: none.
        experts: [⌈P⌉] whose rows a tile holds; -1: nobody's.
        spans: [E, 3] an expert, its first tile and the one behind its last; those of most tiles come first.
    """

    choices: Tensor
    places: Tensor
    experts: Tensor
    spans: Tensor


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
    _launch().quantise_blocks(weight, *copy.layouts, copy.scaling)


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
    memory, n_sums = product.untyped_storage(), _n_sums(product.device)
    if product.storage_offset() or memory.nbytes() != product.nbytes + n_sums * torch.float32.itemsize:
        return None
    sums = torch.empty(0, dtype=torch.float32, device=product.device)
    return sums.set_(memory, product.nbytes // torch.float32.itemsize, (n_sums,), (1,))


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


def shares_whole_rows(scaling: Scaling, choices: Tensor | None) -> bool:
    """Whether rows that carry out `choices`, and columns, have one scale each, which products then need not apply.

    Scales of tiles that are powers of two do as well. Whole rows have to be looked at before they are rounded, which is
    repaid where each token is several experts'.
    """
    return scaling is Scaling.ROWWISE and choices is not None


@Operation
def _plan_choices(indices: Tensor, n_experts: int, room: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    plan = _room_for_plan(indices, indices.numel(), n_experts, room)
    _launch().plan_choices(indices.contiguous(), *plan)
    return plan


@_plan_choices.register_fake
def _(indices: Tensor, n_experts: int, room: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return _room_for_plan(indices, indices.numel(), n_experts, room)


@Operation
def _plan_rows(offsets: Tensor, n_rows: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    plan = _room_for_plan(offsets, n_rows, offsets.shape[0], n_rows)
    _launch().plan_rows(offsets, *plan)
    return plan


@_plan_rows.register_fake
def _(offsets: Tensor, n_rows: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return _room_for_plan(offsets, n_rows, offsets.shape[0], n_rows)


@Operation
def _quantise_rows(
    x: Tensor, choices: Tensor | None, n_chosen: int, scaling: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    quantised = _room_for_rows(x, choices, n_chosen, scaling)
    _launch().quantise_rows(x, choices, n_chosen, *quantised, Scaling(scaling))
    return quantised


@_quantise_rows.register_fake
def _room_for_rows(
    x: Tensor, choices: Tensor | None, n_chosen: int, scaling: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    n_rows = x.shape[0] if choices is None else choices.shape[0]
    room = _room_for_both(x, n_rows, x.shape[1], is_routed=choices is not None)
    if shares_whole_rows(Scaling(scaling), choices):
        return room[0], room[1][:1], room[2], room[3][:1]
    return room


@Operation
def _quantise_1x128(x: Tensor) -> tuple[Tensor, Tensor]:
    values, scales = _room_for_tiles(x, *x.shape)
    _launch().quantise_rows(x, None, 1, values, scales, None, None, Scaling.BLOCKWISE)
    return values[: x.shape[0]].clone(), scales[:, : x.shape[0]].mT.clone()


@_quantise_1x128.register_fake
def _(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape, dtype=E4M3), x.new_empty(x.shape[0], _blocks(x.shape[1]), dtype=torch.float32)


@Operation
def _quantise_weight(weight: Tensor, scaling: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    quantised = room_for_weight(weight.shape, weight.device)
    quantise_weight_into(weight, Copy(quantised, Scaling(scaling)))
    return quantised.values, quantised.scales, quantised.transposed, quantised.transposed_scales


@_quantise_weight.register_fake
def _(weight: Tensor, scaling: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    room = room_for_weight(weight.shape, weight.device)
    return room.values, room.scales, room.transposed, room.transposed_scales


@Operation
def _multiply_rows(
    rows: Tensor,
    row_scales: Tensor,
    weight: Tensor,
    weight_scales: Tensor,
    experts: Tensor | None,
    n_rows: int,
    output_dtype: torch.dtype,
) -> Tensor:
    output = rows.new_empty(n_rows, weight.shape[-2], dtype=output_dtype)
    _launch().multiply_rows(rows, row_scales, weight, weight_scales, experts, output)
    return output


@_multiply_rows.register_fake
def _(
    rows: Tensor,
    row_scales: Tensor,
    weight: Tensor,
    weight_scales: Tensor,
    experts: Tensor | None,
    n_rows: int,
    output_dtype: torch.dtype,
) -> Tensor:
    return rows.new_empty(n_rows, weight.shape[-2], dtype=output_dtype)


@Operation
def _multiply_tokens(
    gradient: Tensor,
    gradient_scales: Tensor,
    rows: Tensor,
    row_scales: Tensor,
    spans: Tensor,
    output_dtype: torch.dtype,
) -> Tensor:
    shape = spans.shape[0], gradient.shape[1], rows.shape[1]
    n_numbers, n_sums = math.prod(shape), _n_sums(gradient.device)
    memory = gradient.new_empty(
        n_numbers + n_sums * torch.float32.itemsize // output_dtype.itemsize, dtype=output_dtype
    )
    output, squares = memory[:n_numbers].view(shape), memory[n_numbers:].view(torch.float32)
    _launch().multiply_tokens(gradient, gradient_scales, rows, row_scales, spans, output, squares)
    return output


@_multiply_tokens.register_fake
def _(
    gradient: Tensor,
    gradient_scales: Tensor,
    rows: Tensor,
    row_scales: Tensor,
    spans: Tensor,
    output_dtype: torch.dtype,
) -> Tensor:
    return gradient.new_empty(spans.shape[0], gradient.shape[1], rows.shape[1], dtype=output_dtype)


@Operation
def _multiply_plain_tokens(
    gradient: Tensor, gradient_scales: Tensor, rows: Tensor, row_scales: Tensor, output_dtype: torch.dtype
) -> Tensor:
    return F.scaled_mm(
        gradient.transpose(0, 1).flatten(1),
        rows.transpose(0, 1).flatten(1).mT,
        gradient_scales.mT,
        ScalingType.BlockWise1x128,
        row_scales.mT,
        ScalingType.BlockWise1x128,
        output_dtype=output_dtype,
    )


@_multiply_plain_tokens.register_fake
def _(gradient: Tensor, gradient_scales: Tensor, rows: Tensor, row_scales: Tensor, output_dtype: torch.dtype) -> Tensor:
    return gradient.new_empty(gradient.shape[1], rows.shape[1], dtype=output_dtype)


@Operation
def _swiglu(
    gate_up: Tensor, gates: Tensor | None, choices: Tensor | None, scaling: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    quantised = _room_for_swiglu(gate_up, gates, choices, scaling)
    _launch().swiglu(gate_up, gates, choices, *quantised, Scaling(scaling))
    return quantised


@_swiglu.register_fake
def _room_for_swiglu(
    gate_up: Tensor, gates: Tensor | None, choices: Tensor | None, scaling: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return _room_for_both(gate_up, gate_up.shape[0], gate_up.shape[1] // 2, is_routed=choices is not None)


@Operation
def _swiglu_backward(
    gradient: Tensor, gate_up: Tensor, gates: Tensor | None, choices: Tensor | None, scaling: str
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    outputs = _room_for_swiglu_backward(gradient, gate_up, gates, choices, scaling)
    _launch().swiglu_backward(gradient, gate_up, gates, choices, *outputs, Scaling(scaling))
    return outputs


@_swiglu_backward.register_fake
def _room_for_swiglu_backward(
    gradient: Tensor, gate_up: Tensor, gates: Tensor | None, choices: Tensor | None, scaling: str
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    n_parts = 0 if gates is None else gradient.shape[1] // BLOCK
    of_rows = gate_up.new_empty(n_parts, gate_up.shape[0], dtype=torch.float32)
    return *_room_for_both(gate_up, gate_up.shape[0], gate_up.shape[1], is_routed=choices is not None), of_rows


def room_for_weight(shape: torch.Size, device: torch.device) -> BothLayouts:
    """What `quantise_weight` fills for a weight of this shape [(E,) N, K]."""
    *batch, n_rows, n_columns = shape
    return BothLayouts(
        torch.empty(shape, dtype=E4M3, device=device),
        torch.empty(*batch, _blocks(n_rows), _blocks(n_columns), device=device),
        torch.empty(*batch, n_columns, n_rows, dtype=E4M3, device=device),
        torch.empty(*batch, _blocks(n_columns), _blocks(n_rows), device=device),
    )


def _room_for_plan(like: Tensor, n_choices: int, n_experts: int, room: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    n_tiles = room // BLOCK + n_experts
    sizes = ((n_tiles * BLOCK,), (n_choices,), (n_tiles,), (n_experts, 3))
    choices, places, experts, spans = (like.new_empty(size, dtype=torch.int32) for size in sizes)
    return choices, places, experts, spans


def _room_for_tiles(like: Tensor, n_rows: int, n_columns: int) -> tuple[Tensor, Tensor]:
    n_stored = BLOCK * _blocks(n_rows)
    values = like.new_empty(n_stored, n_columns, dtype=E4M3)
    return values, like.new_empty(_blocks(n_columns), n_stored, dtype=torch.float32)


def _room_for_both(like: Tensor, n_rows: int, n_columns: int, is_routed: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    n_tiles = _blocks(n_rows)
    if is_routed:
        transposed = like.new_empty(n_tiles, n_columns, BLOCK, dtype=E4M3)
        n_scales = 2 * BLOCK * ((n_columns + 2 * BLOCK - 1) // (2 * BLOCK))
    else:
        transposed = like.new_empty(n_columns, n_tiles, BLOCK, dtype=E4M3).transpose(0, 1)
        n_scales = n_columns
    tiles = _room_for_tiles(like, n_rows, n_columns)
    return *tiles, transposed, like.new_empty(n_tiles, n_scales, dtype=torch.float32)


def _n_sums(device: torch.device) -> int:
    """How many sums of squares `multiply_tokens` leaves behind."""
    return BLOCK * int(_launch().multiprocessors(device))


@cache
def _launch() -> ModuleType:
    """The launches, imported late: Triton need not be installed where this module is only imported."""
    return importlib.import_module("lightning_modules.precision.kernels.launch")


def _blocks(size: int) -> int:
    return (size + BLOCK - 1) // BLOCK
