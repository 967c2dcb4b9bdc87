"""The feed-forward network of a few rows: only the chosen experts' weights are read, and the shared one's.

What a row goes through are its places: first those of shared experts, then of chosen ones, all of width I.

Suffixes as in `experts.py`; N rows, P places.
"""

# Kernels are typed by what they are compiled for, and their compile-time constants are capitals.
# mypy: allow-untyped-defs
# ruff: noqa: N803, N806

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from lightning_modules.model.block_scaled import BLOCK as SCALED
from lightning_modules.model.block_scaled import LARGEST_TILE, Matrix
from lightning_modules.model.kernels.columns import (
    add_products,
    load_columns,
    load_factors,
    positions,
    sum_columns,
    zeros,
)
from lightning_modules.model.kernels.dependent_launch import dependent_launch, launch_dependents, wait_for_previous
from lightning_modules.model.kernels.expert_ranks import Choices
from lightning_modules.model.kernels.few_rows import (
    Norm,
    chunks,
    load_normalised,
    scale_of_row,
    warps,
)

# Columns of a program.
GATE_COLUMNS, DENSE_COLUMNS = 8, 4
# Of the chosen experts' way down: numbers of a column that a thread multiplies, bytes of weights that it holds at once,
# and how often it does. FP8 all fits on the GPU at once, before activations are there; wider types half and half.
NUMBERS_OF_THREAD = 16
FP8_HELD, HELD = (512, 1), (256, 2)


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


def activate(hidden: Tensor, norm: Norm, experts: Experts, choices: Choices | None) -> Tensor:
    """silu(gate) · up · the router's weight, at all places of every row [N, P, I].

    Args:
        hidden: [N, D], contiguous, before its norm.
        norm: of these.
        experts: the network.
        choices: of the rows; None: they go through the shared experts alone.
    """
    n_rows, depth = hidden.shape
    n_chosen = 0 if choices is None else choices.indices.shape[1]
    activations = hidden.new_empty(n_rows, experts.n_shared + n_chosen, experts.width)
    gate, up = experts.gate or experts.gate_up, experts.up or experts.gate_up
    routed = experts.gate_up or experts.gate
    assert gate is not None
    assert up is not None
    assert routed is not None
    tiling = _up_tiling(depth, gate.values.itemsize)
    _activate[(triton.cdiv(experts.width, tiling.columns), activations.shape[1], n_rows)](
        hidden,
        norm.weight,
        *gate,
        *up,
        *routed,
        *(choices or (None, None)),
        activations,
        norm.epsilon,
        DEPTH=depth,
        WIDTH=experts.width,
        SHARED=experts.n_shared,
        CHOSEN=n_chosen,
        TILE=tiling.columns,
        CHUNK=tiling.chunk,
        NUMBERS=tiling.numbers,
        SCALED=SCALED,
        num_warps=tiling.warps,
        **dependent_launch(hidden.device),
    )
    return activations


def project_down(activations: Tensor, residual: Tensor, experts: Experts, choices: Choices | None) -> Tensor:
    """`residual` [N, D] plus what all places make of their `activations` [N, P, I] (see `activate`)."""
    n_rows, n_columns = residual.shape
    n_chosen = 0 if choices is None else choices.indices.shape[1]
    output = residual.new_empty(n_rows, n_columns)
    down, routed = experts.down or experts.routed_down, experts.routed_down or experts.down
    assert down is not None
    assert routed is not None
    tiling = _down_tiling(experts, n_chosen)
    _project_down[(triton.cdiv(n_columns, tiling.columns * tiling.parts), n_rows)](
        activations,
        residual,
        *down,
        *routed,
        None if choices is None else choices.indices,
        output,
        COLUMNS=n_columns,
        WIDTH=experts.width,
        SHARED=experts.n_shared,
        CHOSEN=n_chosen,
        TILE=tiling.columns,
        PARTS=tiling.parts,
        CHUNK=tiling.chunk,
        NUMBERS=tiling.numbers,
        SCALED=SCALED,
        num_warps=tiling.warps,
        **dependent_launch(residual.device),
    )
    return output


class _Tiling(NamedTuple):
    """How a program goes about its columns: so many at once, in so many parts; `numbers` a thread of `chunk` in all."""

    columns: int
    parts: int
    chunk: int
    numbers: int

    @property
    def warps(self) -> int:
        """That read a column together."""
        return warps(self.chunk, self.numbers)


def _up_tiling(depth: int, itemsize: int) -> _Tiling:
    return _Tiling(GATE_COLUMNS, 1, *chunks(depth, itemsize))


def _down_tiling(experts: Experts, n_chosen: int) -> _Tiling:
    if experts.routed_down is None or n_chosen == 0:
        assert experts.down is not None
        return _Tiling(DENSE_COLUMNS, 1, *chunks(experts.n_shared * experts.width, experts.down.values.itemsize))
    chunk = triton.next_power_of_2(experts.width)
    numbers = min(NUMBERS_OF_THREAD, chunk)
    itemsize = experts.routed_down.values.itemsize
    held, parts = FP8_HELD if itemsize == 1 else HELD
    columns = max(held // (numbers * n_chosen * itemsize), 1)
    return _Tiling(min(2 ** (columns.bit_length() - 1), LARGEST_TILE // parts), parts, chunk, numbers)


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
    indices,  # int32 [N, K]
    router_weights,  # FP32 [N, K]
    activations,  # [N, P, I]
    epsilon,
    DEPTH: tl.constexpr,
    WIDTH: tl.constexpr,
    SHARED: tl.constexpr,
    CHOSEN: tl.constexpr,
    TILE: tl.constexpr,
    CHUNK: tl.constexpr,
    NUMBERS: tl.constexpr,
    SCALED: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    place = tl.program_id(1)
    row = tl.program_id(2)
    THREADS: tl.constexpr = CHUNK // NUMBERS
    k = positions(0, CHUNK, NUMBERS)
    norm_weights = tl.load(norm_weight + k, mask=k < DEPTH, other=0.0)
    BLOCKS: tl.constexpr = (DEPTH + SCALED - 1) // SCALED * (WIDTH // SCALED)
    weight = 1.0
    gate += place * (WIDTH * DEPTH)
    up += place * (WIDTH * DEPTH)
    if gate_scales is not None:
        gate_scales += place * BLOCKS
        up_scales += place * BLOCKS
    # By themselves, conditions are known when the kernel is compiled.
    if CHOSEN > 0:  # noqa: SIM102
        if place >= SHARED:
            wait_for_previous(DEPENDENT)
            choice = row * CHOSEN + place - SHARED
            expert = tl.load(indices + choice)
            weight = tl.load(router_weights + choice)
            gate = routed + expert.to(tl.int64) * (2 * WIDTH * DEPTH)
            up = gate + WIDTH * DEPTH
            if gate_scales is not None:
                gate_scales = routed_scales + expert * (2 * BLOCKS)
                up_scales = gate_scales + BLOCKS
    first_column = tl.program_id(0) * TILE
    gate_weights = load_columns(gate, first_column, 1, WIDTH - first_column, k, DEPTH, TILE)
    up_weights = load_columns(up, first_column, 1, WIDTH - first_column, k, DEPTH, TILE)
    gate_factors = load_factors(gate_scales, first_column, 0, DEPTH, CHUNK, NUMBERS, SCALED)
    up_factors = load_factors(up_scales, first_column, 0, DEPTH, CHUNK, NUMBERS, SCALED)
    wait_for_previous(DEPENDENT)
    # Not before: what follows reads the choices, which are there by now, ahead of its waiting.
    launch_dependents(DEPENDENT)
    hidden += row * DEPTH
    scale = scale_of_row(hidden, DEPTH, CHUNK, epsilon)
    gate_totals = zeros(THREADS, TILE)
    up_totals = zeros(THREADS, TILE)
    for start in tl.static_range(0, DEPTH, CHUNK):
        k = positions(start, CHUNK, NUMBERS)
        if start > 0:
            gate_weights = load_columns(gate, first_column, 1, WIDTH - first_column, k, DEPTH, TILE)
            up_weights = load_columns(up, first_column, 1, WIDTH - first_column, k, DEPTH, TILE)
            gate_factors = load_factors(gate_scales, first_column, start, DEPTH, CHUNK, NUMBERS, SCALED)
            up_factors = load_factors(up_scales, first_column, start, DEPTH, CHUNK, NUMBERS, SCALED)
            norm_weights = tl.load(norm_weight + k, mask=k < DEPTH, other=0.0)
        numbers = load_normalised(hidden, norm_weights, scale, k, DEPTH)
        gate_totals = add_products(gate_totals, gate_weights, numbers, gate_factors, TILE)
        up_totals = add_products(up_totals, up_weights, numbers, up_factors, TILE)
    gates = sum_columns(gate_totals, THREADS, TILE)
    ups = sum_columns(up_totals, THREADS, TILE)
    activated = gates * tl.sigmoid(gates) * ups * weight
    column = first_column + tl.arange(0, TILE)
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
    indices,  # int32 [N, K]
    output,  # [N, D]
    COLUMNS: tl.constexpr,
    WIDTH: tl.constexpr,
    SHARED: tl.constexpr,
    CHOSEN: tl.constexpr,
    TILE: tl.constexpr,
    PARTS: tl.constexpr,
    CHUNK: tl.constexpr,
    NUMBERS: tl.constexpr,
    SCALED: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    launch_dependents(DEPENDENT)
    row = tl.program_id(1)
    first_column = tl.program_id(0) * (PARTS * TILE)
    THREADS: tl.constexpr = CHUNK // NUMBERS
    k = positions(0, CHUNK, NUMBERS)
    shared_width: tl.constexpr = SHARED * WIDTH
    if SHARED > 0:
        weights = load_columns(down, first_column, 1, COLUMNS - first_column, k, shared_width, TILE)
        factors = load_factors(down_scales, first_column, 0, shared_width, CHUNK, NUMBERS, SCALED)
    matrices = ()
    chosen_weights = ()
    chosen_factors = ()
    for place in tl.static_range(CHOSEN):
        # The kernel before waited for the choices ere it let this one begin. The first cache may hold older ones.
        expert = tl.load(indices + row * CHOSEN + place, cache_modifier=".cg").to(tl.int64)
        matrices += (routed + expert * (COLUMNS * WIDTH),)  # type: ignore[assignment]
        chosen_weights += (load_columns(matrices[place], first_column, 1, COLUMNS - first_column, k, WIDTH, TILE),)  # type: ignore[assignment]
        scales = routed_scales
        if routed_scales is not None:
            scales += expert * ((COLUMNS + SCALED - 1) // SCALED * ((WIDTH + SCALED - 1) // SCALED))
        chosen_factors += (load_factors(scales, first_column, 0, WIDTH, CHUNK, NUMBERS, SCALED),)  # type: ignore[assignment]
    wait_for_previous(DEPENDENT)
    activations += row * ((SHARED + CHOSEN) * WIDTH)
    for part in tl.static_range(PARTS):
        totals = zeros(THREADS, TILE)
        next_column = first_column + TILE
        next_weights = ()
        for place in tl.static_range(CHOSEN):
            k = positions(0, CHUNK, NUMBERS)
            numbers = tl.load(activations + (SHARED + place) * WIDTH + k, mask=k < WIDTH, other=0.0).to(tl.float32)
            totals = add_products(totals, chosen_weights[place], numbers, chosen_factors[place], TILE)
            if part + 1 < PARTS:
                next_weights += (load_columns(matrices[place], next_column, 1, COLUMNS - next_column, k, WIDTH, TILE),)  # type: ignore[assignment]
        chosen_weights = next_weights
        if SHARED > 0:
            for start in tl.static_range(0, shared_width, CHUNK):
                k = positions(start, CHUNK, NUMBERS)
                if start > 0:
                    weights = load_columns(down, first_column, 1, COLUMNS - first_column, k, shared_width, TILE)
                    factors = load_factors(down_scales, first_column, start, shared_width, CHUNK, NUMBERS, SCALED)
                numbers = tl.load(activations + k, mask=k < shared_width, other=0.0).to(tl.float32)
                totals = add_products(totals, weights, numbers, factors, TILE)
            if part + 1 < PARTS:
                k = positions(0, CHUNK, NUMBERS)
                weights = load_columns(down, next_column, 1, COLUMNS - next_column, k, shared_width, TILE)
                if shared_width > CHUNK:
                    factors = load_factors(down_scales, next_column, 0, shared_width, CHUNK, NUMBERS, SCALED)
        column = first_column + tl.arange(0, TILE)
        is_column = column < COLUMNS
        at = row * COLUMNS + column
        sums = sum_columns(totals, THREADS, TILE) + tl.load(residual + at, mask=is_column, other=0.0).to(tl.float32)
        tl.store(output + at, sums.to(output.dtype.element_ty), mask=is_column)
        first_column = next_column
