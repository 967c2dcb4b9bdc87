"""Queries of a few rows: their projection with all that belongs to it, and W_UK.

As in `few_rows`, programs read their weights before they wait for what these are multiplied by.

Suffixes as in `attention.py`; N rows, K their numbers.
"""

# Kernels are typed by what they are compiled for, and their compile-time constants are capitals.
# mypy: allow-untyped-defs
# ruff: noqa: N803, N806

import triton
import triton.language as tl
from torch import Tensor

from lightning_modules.model.block_scaled import BLOCK as SCALED
from lightning_modules.model.block_scaled import Matrix
from lightning_modules.model.kernels.columns import load_columns, load_factors, multiply_columns, positions
from lightning_modules.model.kernels.dependent_launch import dependent_launch, launch_dependents, wait_for_previous
from lightning_modules.model.kernels.few_rows import (
    Norm,
    chunks,
    load_normalised,
    load_weights,
    scale_of_row,
    tile_of,
    warps,
)
from lightning_modules.model.kernels.latent_append import Remembered, append_token


def project_queries(
    x: Tensor, matrix: Matrix, norm: Norm, nope_dim: int, remembered: Remembered
) -> tuple[Tensor, Tensor]:
    """Queries [N, H, nope] without position and [N, H, P], rotated, of normalised `x` [N, K].

    Programs to spare append what the same tokens are remembered by, which needs nothing of the queries.

    Args:
        x: what queries are projected from; rows may lie apart.
        matrix: [H · (nope + P), K].
        norm: of `x`.
        nope_dim: even, like P.
        remembered: of the same tokens, whose angles are those of the queries.
    """
    n_rows, depth = x.shape
    rope_dim = remembered.rope_key.shape[-1]
    n_heads = matrix.values.shape[0] // (nope_dim + rope_dim)
    nope = x.new_empty(n_rows, n_heads, nope_dim)
    rope = x.new_empty(n_rows, n_heads, rope_dim)
    chunk, numbers = chunks(depth, matrix.values.itemsize)
    pairs = max(tile_of(matrix.values.shape[0], chunk) // 2, 1)
    blocks = triton.cdiv(nope_dim // 2, pairs) + triton.cdiv(rope_dim // 2, pairs)
    _project_queries[(blocks, n_heads + triton.cdiv(n_rows, blocks))](
        x,
        norm.weight,
        *matrix,
        remembered.cos,
        remembered.sin,
        nope,
        rope,
        x.stride(0),
        norm.epsilon,
        remembered.tensors(),
        remembered.places(),
        remembered.eps,
        ROWS=n_rows,
        DEPTH=depth,
        HEADS=n_heads,
        NOPE=nope_dim,
        ROPE=rope_dim,
        INTERLEAVED=remembered.interleaves,
        REMEMBERED=remembered.shape(),
        PAIRS=pairs,
        CHUNK=chunk,
        NUMBERS=numbers,
        SCALED=SCALED,
        num_warps=warps(chunk, numbers),
        **dependent_launch(x.device),
    )
    return nope, rope


def absorb_queries(query: Tensor, up: Matrix, rank: int) -> Tensor:
    """Every head's query [N, H, nope] by its W_UK: [N, H, R].

    Args:
        query: without position.
        up: [H · (nope + value), R] W_UK above W_UV of each head.
        rank: R.
    """
    n_rows, n_heads, nope_dim = query.shape
    absorbed = query.new_empty(n_rows, n_heads, rank)
    tile = min(64, triton.next_power_of_2(rank))
    _absorb[(triton.cdiv(rank, tile), n_heads)](
        query,
        *up,
        absorbed,
        ROWS=n_rows,
        NOPE=nope_dim,
        NOPE_BLOCK=triton.next_power_of_2(nope_dim),
        HEAD_COLUMNS=up.values.shape[0] // n_heads,
        RANK=rank,
        TILE=tile,
        SCALED=SCALED,
        num_warps=4,
        **dependent_launch(query.device),
    )
    return absorbed


@triton.jit
def _project_queries(
    x,  # [N, K]
    norm_weight,  # [K]
    weight,  # [H · (nope + P), K]
    scales,  # FP32 of its blocks, or None
    cos,  # FP32 [N, P / 2]
    sin,
    nope,  # [N, H, nope]
    rope,  # [N, H, P]
    x_row,  # stride
    epsilon,
    remembered,  # as in `Remembered`
    places,
    latent_epsilon,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
    HEADS: tl.constexpr,
    NOPE: tl.constexpr,
    ROPE: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    REMEMBERED: tl.constexpr,
    PAIRS: tl.constexpr,
    CHUNK: tl.constexpr,
    NUMBERS: tl.constexpr,
    SCALED: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """PAIRS pairs of dimensions of one head: what is not rotated is turned by an angle of zero."""
    launch_dependents(DEPENDENT)
    NOPE_BLOCKS: tl.constexpr = (NOPE // 2 + PAIRS - 1) // PAIRS
    head = tl.program_id(1)
    if head >= HEADS:
        token = (head - HEADS) * tl.num_programs(0) + tl.program_id(0)
        wait_for_previous(DEPENDENT)
        if token < ROWS:
            append_token(token, remembered, places, latent_epsilon, REMEMBERED)
        return
    is_rope = tl.program_id(0) >= NOPE_BLOCKS
    first_pair = (tl.program_id(0) - tl.where(is_rope, NOPE_BLOCKS, 0)) * PAIRS
    n_pairs = tl.where(is_rope, ROPE // 2, NOPE // 2) - first_pair
    are_adjacent = INTERLEAVED | (is_rope == 0)
    step = tl.where(are_adjacent, 2, 1)
    apart = tl.where(are_adjacent, 1, ROPE // 2)
    first_column = head * (NOPE + ROPE) + tl.where(is_rope, NOPE, 0) + first_pair * step
    second_column = first_column + apart
    THREADS: tl.constexpr = CHUNK // NUMBERS
    k = positions(0, CHUNK, NUMBERS)
    first_weights = load_columns(weight, first_column, step, n_pairs, k, DEPTH, PAIRS)
    second_weights = load_columns(weight, second_column, step, n_pairs, k, DEPTH, PAIRS)
    # All pairs of a program lie in one block of scales, or two when halves of a head are paired.
    first_factors = load_factors(scales, first_column, 0, DEPTH, CHUNK, NUMBERS, SCALED)
    second_factors = load_factors(scales, second_column, 0, DEPTH, CHUNK, NUMBERS, SCALED)
    norm_weights = tl.load(norm_weight + k, mask=k < DEPTH, other=0.0)
    wait_for_previous(DEPENDENT)
    row = tl.arange(0, triton.next_power_of_2(ROWS))
    firsts = tl.zeros([row.shape[0], PAIRS], tl.float32)
    seconds = tl.zeros([row.shape[0], PAIRS], tl.float32)
    for start in tl.static_range(0, DEPTH, CHUNK):
        k = positions(start, CHUNK, NUMBERS)
        if start > 0:
            first_weights = load_columns(weight, first_column, step, n_pairs, k, DEPTH, PAIRS)
            second_weights = load_columns(weight, second_column, step, n_pairs, k, DEPTH, PAIRS)
            first_factors = load_factors(scales, first_column, start, DEPTH, CHUNK, NUMBERS, SCALED)
            second_factors = load_factors(scales, second_column, start, DEPTH, CHUNK, NUMBERS, SCALED)
            norm_weights = tl.load(norm_weight + k, mask=k < DEPTH, other=0.0)
        for n in tl.static_range(ROWS):
            scale = scale_of_row(x + n * x_row, DEPTH, CHUNK, epsilon)
            numbers = load_normalised(x + n * x_row, norm_weights, scale, k, DEPTH)
            of_first = multiply_columns(first_weights, numbers, first_factors, THREADS, PAIRS)
            of_second = multiply_columns(second_weights, numbers, second_factors, THREADS, PAIRS)
            firsts += tl.where(row[:, None] == n, of_first[None, :], 0.0)
            seconds += tl.where(row[:, None] == n, of_second[None, :], 0.0)
    pair = tl.arange(0, PAIRS)
    inside = (pair < n_pairs)[None, :] & (row < ROWS)[:, None]
    first = first_pair * step + pair * step
    second = first + apart
    query = row[:, None] * HEADS + head
    if is_rope:
        angle = row[:, None] * (ROPE // 2) + (first_pair + pair)[None, :]
        of_cos = tl.load(cos + angle, mask=inside, other=1.0)
        of_sin = tl.load(sin + angle, mask=inside, other=0.0)
        at = rope + query * ROPE
        tl.store(at + first[None, :], (firsts * of_cos - seconds * of_sin).to(rope.dtype.element_ty), mask=inside)
        tl.store(at + second[None, :], (seconds * of_cos + firsts * of_sin).to(rope.dtype.element_ty), mask=inside)
    else:
        at = nope + query * NOPE
        tl.store(at + first[None, :], firsts.to(nope.dtype.element_ty), mask=inside)
        tl.store(at + second[None, :], seconds.to(nope.dtype.element_ty), mask=inside)


@triton.jit
def _absorb(
    query,  # [N, H, nope]
    weight,  # [H · (nope + value), R]
    scales,  # FP32 of its blocks, or None
    absorbed,  # [N, H, R]
    ROWS: tl.constexpr,
    NOPE: tl.constexpr,
    NOPE_BLOCK: tl.constexpr,
    HEAD_COLUMNS: tl.constexpr,
    RANK: tl.constexpr,
    TILE: tl.constexpr,
    SCALED: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """TILE numbers of one head's absorbed queries."""
    launch_dependents(DEPENDENT)
    head = tl.program_id(1)
    n_heads = tl.num_programs(1)
    place = tl.arange(0, NOPE_BLOCK)
    dim = tl.program_id(0) * TILE + tl.arange(0, TILE)
    column = head * HEAD_COLUMNS + place
    weights = load_weights(weight, column, dim, head * HEAD_COLUMNS + NOPE, RANK)
    factors = tl.full(place.shape, 1.0, tl.float32)
    if scales is not None:
        BLOCKS: tl.constexpr = (RANK + SCALED - 1) // SCALED
        scale = scales + column // SCALED * BLOCKS + tl.program_id(0) * TILE // SCALED
        factors = tl.load(scale, mask=place < NOPE, other=0.0)
    wait_for_previous(DEPENDENT)
    for n in tl.static_range(ROWS):
        of_head = n * n_heads + head
        numbers = tl.load(query + of_head * NOPE + place, mask=place < NOPE, other=0.0).to(tl.float32) * factors
        sums = tl.sum(weights.to(tl.float32) * numbers[:, None], axis=0)
        tl.store(absorbed + of_head * RANK + dim, sums.to(absorbed.dtype.element_ty), mask=dim < RANK)
