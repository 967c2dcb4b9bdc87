"""The operations of the library `melisma_fp8`: each makes room for its results, and launches a kernel that fills it.

`blockwise` says what they compute, in the same order and in terms of layouts.
"""

import importlib
import math
from functools import cache
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.functional import ScalingType

from lightning_modules.precision.emulation import BLOCK, E4M3
from lightning_modules.precision.kernels.layouts import (
    n_blocks,
    room_for_both,
    room_for_plan,
    room_for_tiles,
    room_for_weight,
    shares_whole_rows,
)
from lightning_modules.precision.kernels.operation import Operation
from lightning_modules.precision.scaling import Scaling


@Operation
def _plan_choices(indices: Tensor, n_experts: int, room: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    plan = room_for_plan(indices, indices.numel(), n_experts, room)
    launch().plan_choices(indices.contiguous(), *plan)
    return plan


@_plan_choices.register_fake
def _(indices: Tensor, n_experts: int, room: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return room_for_plan(indices, indices.numel(), n_experts, room)


@Operation
def _plan_rows(offsets: Tensor, n_rows: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    plan = room_for_plan(offsets, n_rows, offsets.shape[0], n_rows)
    launch().plan_rows(offsets, *plan)
    return plan


@_plan_rows.register_fake
def _(offsets: Tensor, n_rows: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return room_for_plan(offsets, n_rows, offsets.shape[0], n_rows)


@Operation
def _quantise_rows(
    x: Tensor, choices: Tensor | None, n_chosen: int, scaling: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    quantised = _room_for_rows(x, choices, n_chosen, scaling)
    launch().quantise_rows(x, choices, n_chosen, *quantised, Scaling(scaling))
    return quantised


@_quantise_rows.register_fake
def _room_for_rows(
    x: Tensor, choices: Tensor | None, n_chosen: int, scaling: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    n_rows = x.shape[0] if choices is None else choices.shape[0]
    room = room_for_both(x, n_rows, x.shape[1], is_routed=choices is not None)
    if shares_whole_rows(Scaling(scaling), choices):
        return room[0], room[1][:1], room[2], room[3][:1]
    return room


@Operation
def _quantise_1x128(x: Tensor) -> tuple[Tensor, Tensor]:
    values, scales = room_for_tiles(x, *x.shape)
    launch().quantise_rows(x, None, 1, values, scales, None, None, Scaling.BLOCKWISE)
    return values[: x.shape[0]].clone(), scales[:, : x.shape[0]].mT.clone()


@_quantise_1x128.register_fake
def _(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape, dtype=E4M3), x.new_empty(x.shape[0], n_blocks(x.shape[1]), dtype=torch.float32)


@Operation
def _quantise_weight(weight: Tensor, scaling: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    quantised = room_for_weight(weight.shape, weight.device)
    launch().quantise_blocks(weight, *quantised, Scaling(scaling))
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
    launch().multiply_rows(rows, row_scales, weight, weight_scales, experts, output)
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
    n_numbers, count = math.prod(shape), n_sums(gradient.device)
    memory = gradient.new_empty(n_numbers + count * torch.float32.itemsize // output_dtype.itemsize, dtype=output_dtype)
    output, squares = memory[:n_numbers].view(shape), memory[n_numbers:].view(torch.float32)
    launch().multiply_tokens(gradient, gradient_scales, rows, row_scales, spans, output, squares)
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
    launch().swiglu(gate_up, gates, choices, *quantised, Scaling(scaling))
    return quantised


@_swiglu.register_fake
def _room_for_swiglu(
    gate_up: Tensor, gates: Tensor | None, choices: Tensor | None, scaling: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return room_for_both(gate_up, gate_up.shape[0], gate_up.shape[1] // 2, is_routed=choices is not None)


@Operation
def _swiglu_backward(
    gradient: Tensor, gate_up: Tensor, gates: Tensor | None, choices: Tensor | None, scaling: str
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    outputs = _room_for_swiglu_backward(gradient, gate_up, gates, choices, scaling)
    launch().swiglu_backward(gradient, gate_up, gates, choices, *outputs, Scaling(scaling))
    return outputs


@_swiglu_backward.register_fake
def _room_for_swiglu_backward(
    gradient: Tensor, gate_up: Tensor, gates: Tensor | None, choices: Tensor | None, scaling: str
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    n_parts = 0 if gates is None else gradient.shape[1] // BLOCK
    of_rows = gate_up.new_empty(n_parts, gate_up.shape[0], dtype=torch.float32)
    return *room_for_both(gate_up, gate_up.shape[0], gate_up.shape[1], is_routed=choices is not None), of_rows


def n_sums(device: torch.device) -> int:
    """How many sums of squares `multiply_tokens` leaves behind."""
    return BLOCK * int(launch().multiprocessors(device))


@cache
def launch() -> ModuleType:
    """The launches, imported late: Triton need not be installed where this module is only imported."""
    return importlib.import_module("lightning_modules.precision.kernels.launch")
