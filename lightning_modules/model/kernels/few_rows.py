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
from lightning_modules.model.kernels.columns import load_columns, load_factors, multiply_columns, positions
from lightning_modules.model.kernels.dependent_launch import dependent_launch, launch_dependents, wait_for_previous

# Rows that these kernels are for: each is multiplied by itself, by plain multiplication units.
FEW_ROWS = 4
# Numbers of a row that are read at once, at most, and by one thread: bytes of a column, and no fewer than that.
LONGEST_CHUNK = 2048
THREAD_BYTES, FEWEST_NUMBERS = 16, 8
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
    chunk, numbers = chunks(x.shape[1], matrix.values.itemsize)
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
        NUMBERS=numbers,
        SCALED=SCALED,
        num_warps=warps(chunk, numbers),
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
    chunk, numbers = chunks(rank, up.values.itemsize)
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
        NUMBERS=numbers,
        SCALED=SCALED,
        num_warps=warps(chunk, numbers),
        **dependent_launch(context.device),
    )
    return values


def chunks(depth: int, itemsize: int) -> tuple[int, int]:
    """How many numbers of a row of `depth` are read at once, and by each thread, where a weight has so many bytes."""
    chunk = min(triton.next_power_of_2(depth), LONGEST_CHUNK)
    return chunk, min(max(THREAD_BYTES // itemsize, FEWEST_NUMBERS), chunk)


def warps(chunk: int, numbers: int) -> int:
    """That read a column together."""
    return max(chunk // (32 * numbers), 1)


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
    NUMBERS: tl.constexpr,
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
    first_column = head * HEAD_COLUMNS + SKIPPED_COLUMNS + block * TILE
    n_left = n_columns - block * TILE
    row = tl.arange(0, triton.next_power_of_2(ROWS))
    THREADS: tl.constexpr = CHUNK // NUMBERS
    k = positions(0, CHUNK, NUMBERS)
    weights = load_columns(weight, first_column, 1, n_left, k, DEPTH, TILE)
    factors = load_factors(scales, first_column, 0, DEPTH, CHUNK, NUMBERS, SCALED)
    if norm_weight is not None:
        norm_weights = tl.load(norm_weight + k, mask=k < DEPTH, other=0.0)
    wait_for_previous(DEPENDENT)
    x += head * x_head
    totals = tl.zeros([row.shape[0], TILE], tl.float32)
    for start in tl.static_range(0, DEPTH, CHUNK):
        k = positions(start, CHUNK, NUMBERS)
        if start > 0:
            weights = load_columns(weight, first_column, 1, n_left, k, DEPTH, TILE)
            factors = load_factors(scales, first_column, start, DEPTH, CHUNK, NUMBERS, SCALED)
            if norm_weight is not None:
                norm_weights = tl.load(norm_weight + k, mask=k < DEPTH, other=0.0)
        for n in tl.static_range(ROWS):
            of_row = x + n * x_row
            if norm_weight is not None:
                scale = scale_of_row(of_row, DEPTH, CHUNK, epsilon)
                numbers = load_normalised(of_row, norm_weights, scale, k, DEPTH)
            else:
                numbers = tl.load(of_row + k, mask=k < DEPTH, other=0.0).to(tl.float32)
            sums = multiply_columns(weights, numbers, factors, THREADS, TILE)
            totals += tl.where(row[:, None] == n, sums[None, :], 0.0)
    at = row[:, None] * product_row + (head * COLUMNS + of_product + place)[None, :]
    inside = (place < n_columns)[None, :] & (row < ROWS)[:, None]
    if residual is not None:
        totals += tl.load(residual + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(product + at, totals.to(product.dtype.element_ty), mask=inside)
