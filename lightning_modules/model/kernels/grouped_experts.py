"""The feed-forward network of many rows: every chosen expert's weights are read once for all rows that chose it.

Rows that go through experts lie sorted by expert, and behind these, once more, for every shared expert. Where each
expert's rows end is known on the GPU alone: a grid has programs enough for any choice, and some find nothing to do.

Suffixes as in `experts.py`; N tokens, M sorted rows: N · K, and N · S behind them.
"""

# Kernels are typed by what they are compiled for, and their compile-time constants are capitals.
# mypy: allow-untyped-defs
# ruff: noqa: N803, N806

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from lightning_modules.model.block_scaled import BLOCK as SCALED
from lightning_modules.model.kernels.chosen_experts import Experts
from lightning_modules.model.kernels.dependent_launch import dependent_launch, launch_dependents, wait_for_previous
from lightning_modules.model.kernels.sorted_choices import Order

# Columns of a tile of products, and the depth that is read at once.
COLUMNS = 64
DEPTH = 64
# Numbers of a token that one program sums.
SUMMED = 1024


def activate(tokens: Tensor, experts: Experts, order: Order, weights: Tensor) -> Tensor:
    """silu(gate) · up · the router's weight, of all sorted rows [M, I].

    Args:
        tokens: [N, D], normalised, contiguous.
        experts: the network, with routed experts.
        order: of the tokens' choices.
        weights: FP32 [N, K] of the choices.
    """
    n_tokens, depth = tokens.shape
    gate, up, routed = experts.gate or experts.gate_up, experts.up or experts.gate_up, experts.gate_up
    assert gate is not None
    assert up is not None
    assert routed is not None
    rows = weights.numel() + experts.n_shared * n_tokens
    activations = tokens.new_empty(rows, experts.width)
    _activate[_grid(n_tokens, order, experts, experts.width)](
        tokens,
        *gate,
        *up,
        *routed,
        order.choices,
        order.ends,
        weights,
        activations,
        n_tokens,
        DEPTH=depth,
        WIDTH=experts.width,
        CHOSEN=weights.shape[1],
        **_shape(n_tokens, order, experts),
        **dependent_launch(tokens.device),
    )
    return activations


def project_down(activations: Tensor, residual: Tensor, experts: Experts, order: Order) -> Tensor:
    """`residual` [N, D] plus what all experts make of their rows' `activations` [M, I]."""
    n_tokens, n_columns = residual.shape
    down, routed = experts.down or experts.routed_down, experts.routed_down
    assert down is not None
    assert routed is not None
    rows = residual.new_empty(activations.shape[0], n_columns)
    _project_down[_grid(n_tokens, order, experts, n_columns)](
        activations,
        *down,
        *routed,
        order.ends,
        rows,
        n_tokens,
        order.choices.numel(),
        WIDTH=experts.width,
        OUTPUTS=n_columns,
        **_shape(n_tokens, order, experts),
        **dependent_launch(residual.device),
    )
    output = torch.empty_like(residual)
    _sum_places[(n_tokens, triton.cdiv(n_columns, SUMMED))](
        rows,
        order.places,
        residual,
        output,
        n_tokens,
        CHOSEN=order.places.shape[1],
        SHARED=experts.n_shared,
        OUTPUTS=n_columns,
        SUMMED=SUMMED,
        **dependent_launch(residual.device),
    )
    return output


def _rows_of_tile(n_tokens: int) -> int:
    """Rows that share a read of an expert's weights: those of most experts, when tokens spread evenly."""
    return 16 if n_tokens <= 64 else 32


def _grid(n_tokens: int, order: Order, experts: Experts, n_columns: int) -> tuple[int, int]:
    """Tiles of columns, and as many tiles of rows as there can be: shared experts' first."""
    rows, n_choices, n_experts = _rows_of_tile(n_tokens), order.choices.numel(), order.ends.numel()
    routed = min(n_choices, n_experts) + n_choices // rows
    return triton.cdiv(n_columns, COLUMNS), experts.n_shared * triton.cdiv(n_tokens, rows) + routed


def _shape(n_tokens: int, order: Order, experts: Experts) -> dict[str, Any]:
    return {
        "SHARED": experts.n_shared,
        "EXPERTS": order.ends.numel(),
        "ROWS": _rows_of_tile(n_tokens),
        "COLUMNS": COLUMNS,
        "BLOCK": DEPTH,
        "SCALED": SCALED,
        "num_warps": 4,
        "num_stages": 4,
    }


@triton.jit
def _find_tile(ends, tile, EXPERTS: tl.constexpr, ROWS: tl.constexpr):
    """The expert of a tile of ROWS sorted rows, where the tile starts, and where the expert's rows end."""
    number = tl.arange(0, triton.next_power_of_2(EXPERTS))
    stops = tl.load(ends + number, mask=number < EXPERTS, other=0)
    starts = tl.load(ends + number - 1, mask=(number > 0) & (number < EXPERTS), other=0)
    tile_ends = tl.cumsum(tl.cdiv(tl.maximum(stops - starts, 0), ROWS), axis=0)
    # Beyond the last expert there is none: such a tile is empty.
    expert = tl.sum((tile_ends <= tile).to(tl.int32), axis=0)
    is_mine = number == expert
    first_tile = tl.max(tl.where(number < expert, tile_ends, 0), axis=0)
    start = tl.sum(tl.where(is_mine, starts, 0), axis=0) + (tile - first_tile) * ROWS
    stop = tl.sum(tl.where(is_mine, stops, 0), axis=0)
    return tl.minimum(expert, EXPERTS - 1), start, stop


@triton.jit
def _activate(
    tokens,  # [N, D]
    gate,  # [S · I, D]
    gate_scales,  # FP32 of its blocks, or None
    up,
    up_scales,
    routed,  # [E, 2 · I, D]
    routed_scales,
    choices,  # int32 [N · K]
    ends,  # int32 [E]
    weights,  # FP32 [N · K]
    activations,  # [M, I]
    n_tokens,
    DEPTH: tl.constexpr,
    WIDTH: tl.constexpr,
    CHOSEN: tl.constexpr,
    SHARED: tl.constexpr,
    EXPERTS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    BLOCK: tl.constexpr,
    SCALED: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    launch_dependents(DEPENDENT)
    wait_for_previous(DEPENDENT)
    BLOCKS: tl.constexpr = (DEPTH + SCALED - 1) // SCALED * (WIDTH // SCALED)
    tiles_of_shared = tl.cdiv(n_tokens, ROWS)
    tile = tl.program_id(1)
    number = tl.arange(0, ROWS)
    if tile < SHARED * tiles_of_shared:
        shared = tile // tiles_of_shared
        token = tile % tiles_of_shared * ROWS + number
        is_row = token < n_tokens
        row = n_tokens * (CHOSEN + shared) + token
        weight = tl.full([ROWS], 1.0, tl.float32)
        gate += shared * (WIDTH * DEPTH)
        up += shared * (WIDTH * DEPTH)
        if gate_scales is not None:
            gate_scales += shared * BLOCKS
            up_scales += shared * BLOCKS
    else:
        expert, start, stop = _find_tile(ends, tile - SHARED * tiles_of_shared, EXPERTS, ROWS)
        row = start + number
        is_row = row < stop
        choice = tl.load(choices + row, mask=is_row, other=0)
        token = choice // CHOSEN
        weight = tl.load(weights + choice, mask=is_row, other=0.0)
        gate = routed + expert.to(tl.int64) * (2 * WIDTH * DEPTH)
        up = gate + WIDTH * DEPTH
        if gate_scales is not None:
            gate_scales = routed_scales + expert * (2 * BLOCKS)
            up_scales = gate_scales + BLOCKS
    if tl.max(is_row.to(tl.int32), axis=0) > 0:
        first_column = tl.program_id(0) * COLUMNS
        column = first_column + tl.arange(0, COLUMNS)
        gates = tl.zeros([COLUMNS, ROWS], tl.float32)
        ups = tl.zeros([COLUMNS, ROWS], tl.float32)
        for begin in range(0, DEPTH, BLOCK):
            k = begin + tl.arange(0, BLOCK)
            numbers = _load_rows(tokens, token, is_row, k, DEPTH)
            scale = begin // SCALED + first_column // SCALED * ((DEPTH + SCALED - 1) // SCALED)
            gates = _add_product(gates, gate, gate_scales, scale, column, WIDTH, k, DEPTH, DEPTH, numbers)
            ups = _add_product(ups, up, up_scales, scale, column, WIDTH, k, DEPTH, DEPTH, numbers)
        activated = gates * tl.sigmoid(gates) * ups * weight[None, :]
        at = activations + row[None, :].to(tl.int64) * WIDTH + column[:, None]
        inside = is_row[None, :] & (column < WIDTH)[:, None]
        tl.store(at, activated.to(activations.dtype.element_ty), mask=inside)


@triton.jit
def _load_rows(rows, row, is_row, k, DEPTH: tl.constexpr):
    """Numbers `k` of `rows` [·, DEPTH], transposed."""
    inside = (k < DEPTH)[:, None] & is_row[None, :]
    return tl.load(rows + row[None, :].to(tl.int64) * DEPTH + k[:, None], mask=inside, other=0.0)


@triton.jit
def _add_product(total, weight, scales, scale, column, n_columns, k, depth, STRIDE: tl.constexpr, numbers):
    """`total` [columns, rows] plus weights [columns, k] by `numbers` [k, rows]; one block of scales has all of them."""
    inside = (column < n_columns)[:, None] & (k < depth)[None, :]
    weights = tl.load(weight + column[:, None] * STRIDE + k[None, :], mask=inside, other=0.0)
    if scales is None:
        total = tl.dot(weights, numbers, total, input_precision="ieee")
    else:
        total += tl.dot(weights.to(numbers.dtype), numbers, input_precision="ieee") * tl.load(scales + scale)
    return total


@triton.jit
def _project_down(
    activations,  # [M, I]
    down,  # [D, S · I]
    down_scales,  # FP32 of its blocks, or None
    routed,  # [E, D, I]
    routed_scales,
    ends,  # int32 [E]
    rows,  # [M, D]
    n_tokens,
    n_choices,
    WIDTH: tl.constexpr,
    OUTPUTS: tl.constexpr,
    SHARED: tl.constexpr,
    EXPERTS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    BLOCK: tl.constexpr,
    SCALED: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    launch_dependents(DEPENDENT)
    wait_for_previous(DEPENDENT)
    tiles_of_shared = tl.cdiv(n_tokens, ROWS)
    tile = tl.program_id(1)
    number = tl.arange(0, ROWS)
    first_column = tl.program_id(0) * COLUMNS
    column = first_column + tl.arange(0, COLUMNS)
    total = tl.zeros([COLUMNS, ROWS], tl.float32)
    if tile < SHARED * tiles_of_shared:
        shared = tile // tiles_of_shared
        token = tile % tiles_of_shared * ROWS + number
        is_row = token < n_tokens
        row = n_choices + shared * n_tokens + token
        # Shared experts lie beside each other: a row of weights holds all of theirs.
        DEPTH: tl.constexpr = SHARED * WIDTH
        down += shared * WIDTH
        for begin in range(0, WIDTH, BLOCK):
            k = begin + tl.arange(0, BLOCK)
            numbers = _load_rows(activations, row, is_row, k, WIDTH)
            scale = first_column // SCALED * ((DEPTH + SCALED - 1) // SCALED) + (shared * WIDTH + begin) // SCALED
            total = _add_product(total, down, down_scales, scale, column, OUTPUTS, k, WIDTH, DEPTH, numbers)
    else:
        expert, start, stop = _find_tile(ends, tile - SHARED * tiles_of_shared, EXPERTS, ROWS)
        row = start + number
        is_row = row < stop
        if start < stop:
            routed += expert.to(tl.int64) * (OUTPUTS * WIDTH)
            BLOCKS: tl.constexpr = (WIDTH + SCALED - 1) // SCALED
            of_expert = expert * ((OUTPUTS + SCALED - 1) // SCALED * BLOCKS) + first_column // SCALED * BLOCKS
            for begin in range(0, WIDTH, BLOCK):
                k = begin + tl.arange(0, BLOCK)
                numbers = _load_rows(activations, row, is_row, k, WIDTH)
                scale = of_expert + begin // SCALED
                total = _add_product(total, routed, routed_scales, scale, column, OUTPUTS, k, WIDTH, WIDTH, numbers)
    at = rows + row[None, :].to(tl.int64) * OUTPUTS + column[:, None]
    tl.store(at, total.to(rows.dtype.element_ty), mask=is_row[None, :] & (column < OUTPUTS)[:, None])


@triton.jit
def _sum_places(
    rows,  # [M, D]
    places,  # int32 [N, K]
    residual,  # [N, D]
    output,  # [N, D]
    n_tokens,
    CHOSEN: tl.constexpr,
    SHARED: tl.constexpr,
    OUTPUTS: tl.constexpr,
    SUMMED: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    launch_dependents(DEPENDENT)
    wait_for_previous(DEPENDENT)
    token = tl.program_id(0)
    column = tl.program_id(1) * SUMMED + tl.arange(0, SUMMED)
    inside = column < OUTPUTS
    at = token * OUTPUTS + column
    total = tl.load(residual + at, mask=inside, other=0.0).to(tl.float32)
    for place in tl.static_range(CHOSEN + SHARED):
        row = tl.load(places + token * CHOSEN + place) if place < CHOSEN else n_tokens * place + token
        total += tl.load(rows + row.to(tl.int64) * OUTPUTS + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(output + at, total.to(output.dtype.element_ty), mask=inside)
