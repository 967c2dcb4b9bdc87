"""Products of a few rows with matrices, at the speed at which the matrices are read.

A program owns a few of a matrix's output columns and reads their weights, all it can hold, before it waits for the
kernel that makes the rows (see `dependent_launch`): memory stays busy while kernels follow one another. Sums are FP32.

Suffixes as in `attention.py`; N rows, K their numbers, C columns of the product.
"""

# Kernels are typed by what they are compiled for, and their compile-time constants are capitals.
# mypy: allow-untyped-defs
# ruff: noqa: N803, N806

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

from lightning_modules.model.block_scaled import BLOCK as SCALED
from lightning_modules.model.block_scaled import LARGEST_TILE, Matrix
from lightning_modules.model.kernels.dependent_launch import dependent_launch, launch_dependents, wait_for_previous
from lightning_modules.model.kernels.latent_append import Remembered, append_token

# Rows that these kernels are for: each is multiplied by itself, by plain multiplication units.
FEW_ROWS = 4
# Numbers of a row that are read at once, at most, and by one warp.
LONGEST_CHUNK = 2048
CHUNK_OF_WARP = 256
# Programs that a product is cut into, about: a few for each multiprocessor.
PROGRAMS = 256


class Norm(NamedTuple):
    """An RMSNorm of rows on their way into a product."""

    weight: Tensor
    epsilon: float

    @classmethod
    def of(cls, norm: nn.RMSNorm) -> "Norm":
        """What a module does."""
        assert norm.eps is not None
        return cls(norm.weight, norm.eps)


def multiply(
    x: Tensor,
    matrix: Matrix,
    beside: Matrix | None = None,
    norm: Norm | None = None,
    residual: Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """`x` [N, K], normalised, by a matrix [C, K], transposed; with one `beside` it, columns of both [N, C + C'].

    Args:
        x: rows, contiguous but for the step from one to the next.
        matrix: the weight.
        beside: another one, of the same type.
        norm: of the rows; None: they are multiplied as they are.
        residual: [N, C] what the product is added to.
        dtype: of the product; None: that of `x`.
    """
    n_columns, n_others = matrix.values.shape[0], 0 if beside is None else beside.values.shape[0]
    product = x.new_empty(x.shape[0], n_columns + n_others, dtype=dtype)
    chunk, warps = chunks(x.shape[1])
    tile = tile_of(n_columns + n_others, chunk)
    other = beside or matrix
    _multiply[(triton.cdiv(n_columns, tile) + triton.cdiv(n_others, tile), 1)](
        x,
        None if norm is None else norm.weight,
        *matrix,
        *other,
        residual,
        product,
        x.stride(0),
        0,
        product.stride(0),
        0.0 if norm is None else norm.epsilon,
        ROWS=x.shape[0],
        DEPTH=x.shape[1],
        COLUMNS=n_columns,
        OTHER_COLUMNS=n_others,
        HEAD_COLUMNS=0,
        SKIPPED_COLUMNS=0,
        TILE=tile,
        CHUNK=chunk,
        SCALED=SCALED,
        num_warps=warps,
        **dependent_launch(x.device),
    )
    return product


def raise_values(context: Tensor, up: Matrix, key_columns: int) -> Tensor:
    """Every head's context [N, H, R] by its W_UV: [N, H, value].

    Args:
        context: attended latents.
        up: [H · (nope + value), R] W_UK above W_UV of each head.
        key_columns: rows of W_UK, per head.
    """
    n_rows, n_heads, rank = context.shape
    head_columns = up.values.shape[0] // n_heads
    n_columns = head_columns - key_columns
    values = context.new_empty(n_rows, n_heads, n_columns)
    chunk, warps = chunks(rank)
    tile = tile_of(n_heads * n_columns, chunk)
    _multiply[(triton.cdiv(n_columns, tile), n_heads)](
        context,
        None,
        *up,
        *up,
        None,
        values,
        context.stride(0),
        context.stride(1),
        values.stride(0),
        0.0,
        ROWS=n_rows,
        DEPTH=rank,
        COLUMNS=n_columns,
        OTHER_COLUMNS=0,
        HEAD_COLUMNS=head_columns,
        SKIPPED_COLUMNS=key_columns,
        TILE=tile,
        CHUNK=chunk,
        SCALED=SCALED,
        num_warps=warps,
        **dependent_launch(context.device),
    )
    return values


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
    chunk, warps = chunks(depth)
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
        SCALED=SCALED,
        num_warps=warps,
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


def chunks(depth: int) -> tuple[int, int]:
    """How many numbers of a row of `depth` are read at once, and by how many warps."""
    chunk = min(triton.next_power_of_2(depth), LONGEST_CHUNK)
    return chunk, min(max(chunk // CHUNK_OF_WARP, 1), 8)


def tile_of(n_columns: int, chunk: int) -> int:
    """Columns of a program: a power of two that makes about `PROGRAMS` of them."""
    held = max(LARGEST_TILE * LONGEST_CHUNK // chunk, 1)
    return max(min(triton.next_power_of_2(triton.cdiv(n_columns, PROGRAMS)), LARGEST_TILE, held), 1)


@triton.jit
def scale_of_row(x, DEPTH: tl.constexpr, CHUNK: tl.constexpr, epsilon):
    """What the row at `x` is multiplied by to have a mean square of one."""
    squares = tl.zeros([CHUNK], tl.float32)
    for start in tl.static_range(0, DEPTH, CHUNK):
        k = start + tl.arange(0, CHUNK)
        numbers = tl.load(x + k, mask=k < DEPTH, other=0.0).to(tl.float32)
        squares += numbers * numbers
    return tl.rsqrt(tl.sum(squares, axis=0) / DEPTH + epsilon)


@triton.jit
def load_normalised(x, norm_weights, scale, k, DEPTH: tl.constexpr):
    """Numbers `k` of the row at `x`, times `scale` and the norm's weights for them, as FP32."""
    numbers = tl.load(x + k, mask=k < DEPTH, other=0.0)
    # Rounded to the activations' type, as a norm by itself rounds what it yields.
    return (numbers.to(tl.float32) * scale * norm_weights.to(tl.float32)).to(numbers.dtype).to(tl.float32)


@triton.jit
def load_weights(weight, column, k, n_columns, DEPTH: tl.constexpr):
    """Weights [columns, k] of a row-major matrix of DEPTH columns, zeros outside of it."""
    inside = (column < n_columns)[:, None] & (k < DEPTH)[None, :]
    return tl.load(weight + column[:, None] * DEPTH + k[None, :], mask=inside, other=0.0)


@triton.jit
def load_scales(scales, column, start, DEPTH: tl.constexpr, CHUNK: tl.constexpr, SCALED: tl.constexpr):
    """The scales of CHUNK numbers, from `start` on, of columns that share a block with `column`; one where none are."""
    factors = tl.full([CHUNK], 1.0, tl.float32)
    if scales is not None:
        DEPTH_BLOCKS: tl.constexpr = (DEPTH + SCALED - 1) // SCALED
        BLOCKS: tl.constexpr = max(CHUNK // SCALED, 1)
        # Each is loaded once: a thread's numbers share one.
        block = start // SCALED + tl.arange(0, BLOCKS)
        of_blocks = tl.load(scales + column // SCALED * DEPTH_BLOCKS + block, mask=block < DEPTH_BLOCKS, other=0.0)
        factors = tl.reshape(tl.broadcast_to(of_blocks[:, None], [BLOCKS, CHUNK // BLOCKS]), [CHUNK])
    return factors


@triton.jit
def _multiply(
    x,  # [N, K], or [N, H, K]
    norm_weight,  # [K], or None
    weight,  # [C, K], or of all heads one above the other
    scales,  # FP32 of its blocks, or None
    other_weight,  # [C', K]
    other_scales,
    residual,  # [N, C], or None
    product,  # [N, C + C'], or [N, H, C]
    x_row,  # strides
    x_head,
    product_row,
    epsilon,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
    COLUMNS: tl.constexpr,
    OTHER_COLUMNS: tl.constexpr,
    HEAD_COLUMNS: tl.constexpr,
    SKIPPED_COLUMNS: tl.constexpr,
    TILE: tl.constexpr,
    CHUNK: tl.constexpr,
    SCALED: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """A tile of columns for all rows; of head program_id(1), whose matrix lies HEAD_COLUMNS below the one before."""
    launch_dependents(DEPENDENT)
    BLOCKS: tl.constexpr = (COLUMNS + TILE - 1) // TILE
    head = tl.program_id(1)
    block = tl.program_id(0)
    n_columns = COLUMNS
    of_product = 0
    # By themselves, conditions are known when the kernel is compiled.
    if OTHER_COLUMNS > 0:  # noqa: SIM102
        if block >= BLOCKS:
            weight = other_weight
            if scales is not None:
                scales = other_scales
            block -= BLOCKS
            n_columns = OTHER_COLUMNS
            of_product = COLUMNS
    place = block * TILE + tl.arange(0, TILE)
    first_column = head * HEAD_COLUMNS + SKIPPED_COLUMNS
    stop_column = first_column + n_columns
    column = first_column + place
    row = tl.arange(0, triton.next_power_of_2(ROWS))
    k = tl.arange(0, CHUNK)
    weights = load_weights(weight, column, k, stop_column, DEPTH)
    factors = load_scales(scales, first_column + block * TILE, 0, DEPTH, CHUNK, SCALED)
    if norm_weight is not None:
        norm_weights = tl.load(norm_weight + k, mask=k < DEPTH, other=0.0)
    wait_for_previous(DEPENDENT)
    x += head * x_head
    totals = tl.zeros([row.shape[0], TILE], tl.float32)
    for start in tl.static_range(0, DEPTH, CHUNK):
        k = start + tl.arange(0, CHUNK)
        if start > 0:
            weights = load_weights(weight, column, k, stop_column, DEPTH)
            factors = load_scales(scales, first_column + block * TILE, start, DEPTH, CHUNK, SCALED)
            if norm_weight is not None:
                norm_weights = tl.load(norm_weight + k, mask=k < DEPTH, other=0.0)
        for n in tl.static_range(ROWS):
            of_row = x + n * x_row
            if norm_weight is not None:
                scale = scale_of_row(of_row, DEPTH, CHUNK, epsilon)
                numbers = load_normalised(of_row, norm_weights, scale, k, DEPTH)
            else:
                numbers = tl.load(of_row + k, mask=k < DEPTH, other=0.0).to(tl.float32)
            sums = tl.sum(weights.to(tl.float32) * (numbers * factors)[None, :], axis=1)
            totals += tl.where(row[:, None] == n, sums[None, :], 0.0)
    at = row[:, None] * product_row + (head * COLUMNS + of_product + place)[None, :]
    inside = (place < n_columns)[None, :] & (row < ROWS)[:, None]
    if residual is not None:
        totals += tl.load(residual + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(product + at, totals.to(product.dtype.element_ty), mask=inside)


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
    pair = (tl.program_id(0) - tl.where(is_rope, NOPE_BLOCKS, 0)) * PAIRS + tl.arange(0, PAIRS)
    is_pair = pair < tl.where(is_rope, ROPE // 2, NOPE // 2)
    are_adjacent = INTERLEAVED | (is_rope == 0)
    first = tl.where(are_adjacent, 2 * pair, pair)
    second = first + tl.where(are_adjacent, 1, ROPE // 2)
    start_column = head * (NOPE + ROPE) + tl.where(is_rope, NOPE, 0)
    stop_column = tl.where(is_pair, start_column + NOPE + ROPE, 0)
    k = tl.arange(0, CHUNK)
    first_weights = load_weights(weight, start_column + first, k, stop_column, DEPTH)
    second_weights = load_weights(weight, start_column + second, k, stop_column, DEPTH)
    # All pairs of a program lie in one block of scales, or two when halves of a head are paired.
    first_scaled, second_scaled = start_column + tl.min(first, axis=0), start_column + tl.min(second, axis=0)
    first_factors = load_scales(scales, first_scaled, 0, DEPTH, CHUNK, SCALED)
    second_factors = load_scales(scales, second_scaled, 0, DEPTH, CHUNK, SCALED)
    norm_weights = tl.load(norm_weight + k, mask=k < DEPTH, other=0.0)
    wait_for_previous(DEPENDENT)
    row = tl.arange(0, triton.next_power_of_2(ROWS))
    firsts = tl.zeros([row.shape[0], PAIRS], tl.float32)
    seconds = tl.zeros([row.shape[0], PAIRS], tl.float32)
    for start in tl.static_range(0, DEPTH, CHUNK):
        k = start + tl.arange(0, CHUNK)
        if start > 0:
            first_weights = load_weights(weight, start_column + first, k, stop_column, DEPTH)
            second_weights = load_weights(weight, start_column + second, k, stop_column, DEPTH)
            first_factors = load_scales(scales, first_scaled, start, DEPTH, CHUNK, SCALED)
            second_factors = load_scales(scales, second_scaled, start, DEPTH, CHUNK, SCALED)
            norm_weights = tl.load(norm_weight + k, mask=k < DEPTH, other=0.0)
        for n in tl.static_range(ROWS):
            scale = scale_of_row(x + n * x_row, DEPTH, CHUNK, epsilon)
            numbers = load_normalised(x + n * x_row, norm_weights, scale, k, DEPTH)
            of_first = tl.sum(first_weights.to(tl.float32) * (numbers * first_factors)[None, :], axis=1)
            of_second = tl.sum(second_weights.to(tl.float32) * (numbers * second_factors)[None, :], axis=1)
            firsts += tl.where(row[:, None] == n, of_first[None, :], 0.0)
            seconds += tl.where(row[:, None] == n, of_second[None, :], 0.0)
    inside = is_pair[None, :] & (row < ROWS)[:, None]
    query = row[:, None] * HEADS + head
    if is_rope:
        angle = row[:, None] * (ROPE // 2) + pair[None, :]
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
