"""The feed-forward network of a few rows: only the chosen experts' weights are read, and the shared one's.

What a row goes through are its places: first those of shared experts, then of chosen ones, all of width I. Every program
ranks the experts by itself, from the router's scores: that costs less than a kernel of its own would.

Suffixes as in `experts.py`; N rows, P places.
"""

# Kernels are typed by what they are compiled for, and their compile-time constants are capitals.
# mypy: allow-untyped-defs
# ruff: noqa: N803

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from lightning_modules.model.kernels.dependent_launch import dependent_launch, launch_dependents, wait_for_previous
from lightning_modules.model.kernels.expert_ranks import Choice, rank_experts
from lightning_modules.model.kernels.few_rows import (
    SCALED,
    Matrix,
    Norm,
    chunks,
    load_normalised,
    load_scales,
    load_weights,
    scale_of_row,
)

# Rows up to which each reads its experts' weights by itself; more would often share them.
FEW_ROWS = 4
# Columns of a program, and the weights that it holds at once.
GATE_COLUMNS = 8
DOWN_COLUMNS = 4
HELD = 2**15


class Experts(NamedTuple):
    """Weights of the network: of shared experts one above (`gate`, `up`) or beside (`down`) the other.

    Attributes:
        gate: [S · I, D], like `up`; None: there are no shared experts.
        up: see there.
        down: [D, S · I].
        gate_up: [E, 2 · I, D] of the routed experts; None: there are none.
        routed_down: [E, D, I].
        n_shared: S.
        width: I.
    """

    gate: Matrix | None
    up: Matrix | None
    down: Matrix | None
    gate_up: Matrix | None
    routed_down: Matrix | None
    n_shared: int
    width: int


def activate(hidden: Tensor, norm: Norm, experts: Experts, logits: Tensor | None, choice: Choice) -> Tensor:
    """silu(gate) · up · the router's weight, at all places of every row [N, P, I].

    Args:
        hidden: [N, D], contiguous, before its norm.
        norm: of these.
        experts: the network.
        logits: FP32 [N, E] of the router; None: no experts are chosen.
        choice: how they are.
    """
    n_rows, depth = hidden.shape
    n_places = experts.n_shared + choice.n_chosen
    activations = hidden.new_empty(n_rows, n_places, experts.width)
    chunk, warps = chunks(depth)
    gate, up = experts.gate or experts.gate_up, experts.up or experts.gate_up
    routed = experts.gate_up or experts.gate
    assert gate is not None and up is not None and routed is not None
    _activate[(triton.cdiv(experts.width, GATE_COLUMNS), n_places, n_rows)](
        hidden,
        norm.weight,
        *gate,
        *up,
        *routed,
        logits,
        choice.bias,
        activations,
        norm.epsilon,
        choice.scaling,
        DEPTH=depth,
        WIDTH=experts.width,
        SHARED=experts.n_shared,
        **choice.constants(),
        TILE=GATE_COLUMNS,
        CHUNK=chunk,
        SCALED=SCALED,
        num_warps=warps,
        **dependent_launch(hidden.device),
    )
    return activations


def project_down(
    activations: Tensor, residual: Tensor, experts: Experts, logits: Tensor | None, choice: Choice
) -> Tensor:
    """`residual` [N, D] plus what all places make of their `activations` [N, P, I] (see `activate`)."""
    n_rows, n_columns = residual.shape
    output = residual.new_empty(n_rows, n_columns)
    chunk, warps = chunks(experts.width if choice.n_chosen else experts.n_shared * experts.width)
    down = experts.down or experts.routed_down
    routed = experts.routed_down or experts.down
    assert down is not None and routed is not None
    places = triton.next_power_of_2(max(choice.n_chosen, 1))
    tile = max(min(DOWN_COLUMNS, HELD // (places * chunk)), 1)
    _project_down[(triton.cdiv(n_columns, tile), n_rows)](
        activations,
        residual,
        *down,
        *routed,
        logits,
        choice.bias,
        output,
        COLUMNS=n_columns,
        WIDTH=experts.width,
        SHARED=experts.n_shared,
        **choice.constants(),
        PLACES=places,
        TILE=tile,
        CHUNK=chunk,
        SCALED=SCALED,
        num_warps=8 if choice.n_chosen else warps,
        **dependent_launch(residual.device),
    )
    return output


@triton.jit
def _activate(
    hidden,  # [N, D]
    norm_weight,  # [D]
    gate,  # [S · I, D]
    gate_scales,  # FP32 of its blocks, or None
    up,
    up_scales,
    routed,  # [E, 2 · I, D]
    routed_scales,
    logits,  # FP32 [N, E]
    bias,  # FP32 [E]
    activations,  # [N, P, I]
    epsilon,
    scaling,
    DEPTH: tl.constexpr,
    WIDTH: tl.constexpr,
    SHARED: tl.constexpr,
    EXPERTS: tl.constexpr,
    GROUPS: tl.constexpr,
    KEPT: tl.constexpr,
    CHOSEN: tl.constexpr,
    SIGMOID: tl.constexpr,
    NORMALISES: tl.constexpr,
    TILE: tl.constexpr,
    CHUNK: tl.constexpr,
    SCALED: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    place = tl.program_id(1)
    row = tl.program_id(2)
    k = tl.arange(0, CHUNK)
    norm_weights = tl.load(norm_weight + k, mask=k < DEPTH, other=0.0)
    BLOCKS: tl.constexpr = (DEPTH + SCALED - 1) // SCALED * (WIDTH // SCALED)
    weight = 1.0
    gate += place * (WIDTH * DEPTH)
    up += place * (WIDTH * DEPTH)
    if gate_scales is not None:
        gate_scales += place * BLOCKS
        up_scales += place * BLOCKS
    if CHOSEN > 0:
        if place >= SHARED:
            wait_for_previous(DEPENDENT)
            rank, scores, total = rank_experts(
                logits + row * EXPERTS, bias, EXPERTS, GROUPS, KEPT, CHOSEN, SIGMOID, NORMALISES
            )
            is_mine = rank == place - SHARED
            expert = tl.sum(tl.where(is_mine, tl.arange(0, rank.shape[0]), 0), axis=0)
            weight = tl.sum(tl.where(is_mine, scores, 0.0), axis=0) / total * scaling
            gate = routed + expert.to(tl.int64) * (2 * WIDTH * DEPTH)
            up = gate + WIDTH * DEPTH
            if gate_scales is not None:
                gate_scales = routed_scales + expert * (2 * BLOCKS)
                up_scales = gate_scales + BLOCKS
    first_column = tl.program_id(0) * TILE
    column = first_column + tl.arange(0, TILE)
    gate_weights = load_weights(gate, column, k, WIDTH, DEPTH)
    up_weights = load_weights(up, column, k, WIDTH, DEPTH)
    gate_factors = load_scales(gate_scales, first_column, k, DEPTH, SCALED)
    up_factors = load_scales(up_scales, first_column, k, DEPTH, SCALED)
    wait_for_previous(DEPENDENT)
    # Not before: what follows ranks the experts ahead of its waiting, by scores that are there by now.
    launch_dependents(DEPENDENT)
    hidden += row * DEPTH
    scale = scale_of_row(hidden, DEPTH, CHUNK, epsilon)
    gates = tl.zeros([TILE], tl.float32)
    ups = tl.zeros([TILE], tl.float32)
    for start in tl.static_range(0, DEPTH, CHUNK):
        k = start + tl.arange(0, CHUNK)
        if start > 0:
            gate_weights = load_weights(gate, column, k, WIDTH, DEPTH)
            up_weights = load_weights(up, column, k, WIDTH, DEPTH)
            gate_factors = load_scales(gate_scales, first_column, k, DEPTH, SCALED)
            up_factors = load_scales(up_scales, first_column, k, DEPTH, SCALED)
            norm_weights = tl.load(norm_weight + k, mask=k < DEPTH, other=0.0)
        numbers = load_normalised(hidden, norm_weights, scale, k, DEPTH)
        gates += tl.sum(gate_weights.to(tl.float32) * (numbers * gate_factors)[None, :], axis=1)
        ups += tl.sum(up_weights.to(tl.float32) * (numbers * up_factors)[None, :], axis=1)
    activated = gates * tl.sigmoid(gates) * ups * weight
    at = activations + (row * tl.num_programs(1) + place) * WIDTH + column
    tl.store(at, activated.to(activations.dtype.element_ty), mask=column < WIDTH)


@triton.jit
def _project_down(
    activations,  # [N, P, I]
    residual,  # [N, D]
    down,  # [D, S · I]
    down_scales,  # FP32 of its blocks, or None
    routed,  # [E, D, I]
    routed_scales,
    logits,  # FP32 [N, E]
    bias,  # FP32 [E]
    output,  # [N, D]
    COLUMNS: tl.constexpr,
    WIDTH: tl.constexpr,
    SHARED: tl.constexpr,
    EXPERTS: tl.constexpr,
    GROUPS: tl.constexpr,
    KEPT: tl.constexpr,
    CHOSEN: tl.constexpr,
    SIGMOID: tl.constexpr,
    NORMALISES: tl.constexpr,
    PLACES: tl.constexpr,
    TILE: tl.constexpr,
    CHUNK: tl.constexpr,
    SCALED: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    launch_dependents(DEPENDENT)
    row = tl.program_id(1)
    first_column = tl.program_id(0) * TILE
    column = first_column + tl.arange(0, TILE)
    is_column = column < COLUMNS
    k = tl.arange(0, CHUNK)
    shared_width: tl.constexpr = SHARED * WIDTH
    totals = tl.zeros([TILE, CHUNK], tl.float32)
    if SHARED > 0:
        weights = load_weights(down, column, k, COLUMNS, shared_width)
        factors = load_scales(down_scales, first_column, k, shared_width, SCALED)
    if CHOSEN > 0:
        # The scores are there: the kernel before waited for them ere it let this one begin.
        rank, _, _ = rank_experts(logits + row * EXPERTS, bias, EXPERTS, GROUPS, KEPT, CHOSEN, SIGMOID, NORMALISES)
        place = tl.arange(0, PLACES)
        number = tl.arange(0, rank.shape[0])
        expert = tl.sum(tl.where(rank[None, :] == place[:, None], number[None, :], 0), axis=1).to(tl.int64)
        inside = (place < CHOSEN)[:, None, None] & is_column[None, :, None] & (k < WIDTH)[None, None, :]
        at = expert[:, None, None] * (COLUMNS * WIDTH) + column[None, :, None] * WIDTH + k[None, None, :]
        chosen_weights = tl.load(routed + at, mask=inside, other=0.0)
        if routed_scales is not None:
            BLOCKS: tl.constexpr = (WIDTH + SCALED - 1) // SCALED
            of_expert = expert[:, None] * ((COLUMNS + SCALED - 1) // SCALED * BLOCKS)
            scale = of_expert + first_column // SCALED * BLOCKS + k[None, :] // SCALED
            chosen_factors = tl.load(routed_scales + scale, mask=(k < WIDTH)[None, :], other=0.0)
    wait_for_previous(DEPENDENT)
    activations += row * ((SHARED + CHOSEN) * WIDTH)
    if SHARED > 0:
        for start in tl.static_range(0, shared_width, CHUNK):
            k = start + tl.arange(0, CHUNK)
            if start > 0:
                weights = load_weights(down, column, k, COLUMNS, shared_width)
                factors = load_scales(down_scales, first_column, k, shared_width, SCALED)
            numbers = tl.load(activations + k, mask=k < shared_width, other=0.0).to(tl.float32)
            totals += weights.to(tl.float32) * (numbers * factors)[None, :]
    sums = tl.sum(totals, axis=1)
    if CHOSEN > 0:
        k = tl.arange(0, CHUNK)
        at = activations + (SHARED + place)[:, None] * WIDTH + k[None, :]
        are_numbers = (place < CHOSEN)[:, None] & (k < WIDTH)[None, :]
        numbers = tl.load(at, mask=are_numbers, other=0.0).to(tl.float32)
        if routed_scales is not None:
            numbers *= chosen_factors
        products = chosen_weights.to(tl.float32) * numbers[:, None, :]
        sums += tl.sum(tl.sum(products, axis=2), axis=0)
    at = row * COLUMNS + column
    sums += tl.load(residual + at, mask=is_column, other=0.0).to(tl.float32)
    tl.store(output + at, sums.to(output.dtype.element_ty), mask=is_column)
