"""A Triton kernel that multiplies E4M3 gradients by E4M3 activations of every expert, for products over tokens.

The tensor cores add up 128 products; their sum is scaled and joins an FP32 accumulator in ordinary registers, the
promotion of arXiv 2412.19437, section 3.3.2. Both operands have their tokens side by side, as `wgmma` wants FP8.
"""

# Kernels are typed by what they are compiled for, and their compile-time constants are capitals.
# mypy: allow-untyped-defs
# ruff: noqa: N803

import triton
import triton.language as tl


@triton.jit
def multiply_tokens(
    gradient,  # descriptor of [n_rows, tokens] in blocks of BLOCK_M×TILE
    rows,  # descriptor of [n_columns, tokens] in blocks of BLOCK_N×TILE
    gradient_scales,  # [token tiles, n_rows], row-major
    row_scales,  # [token tiles, n_columns], row-major
    offsets,  # [n_experts] int32
    output,  # [n_experts, n_rows, n_columns], row-major
    n_experts,
    n_rows,
    n_columns,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    TILE: tl.constexpr,
    EXPERTS: tl.constexpr,
):
    """Every expert's gradient by the transpose of its rows, summed over its own tokens, both in tiles along tokens."""
    column_tiles = tl.cdiv(n_columns, BLOCK_N)
    row_tiles = tl.cdiv(n_rows, BLOCK_M)
    expert = tl.program_id(0) // (row_tiles * column_tiles)
    place = tl.program_id(0) % (row_tiles * column_tiles)
    row = place // column_tiles * BLOCK_M
    column = place % column_tiles * BLOCK_N

    experts = tl.arange(0, EXPERTS)
    ends = tl.load(offsets + experts, experts < n_experts, other=0)
    starts = tl.load(offsets + experts - 1, (experts > 0) & (experts < n_experts), other=0)
    tiles = tl.cdiv(ends - starts, TILE)
    first_tile = tl.sum(tl.where(experts < expert, tiles, 0), 0)
    n_tiles = tl.sum(tl.where(experts == expert, tiles, 0), 0)

    my_rows = row + tl.arange(0, BLOCK_M)
    my_columns = column + tl.arange(0, BLOCK_N)
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for tile in range(first_tile, first_tile + n_tiles):
        left = gradient.load([row, tile * TILE])
        right = rows.load([column, tile * TILE])
        left_scale = tl.load(gradient_scales + tl.cast(tile, tl.int64) * n_rows + my_rows, my_rows < n_rows, other=0.0)
        right_scale = tl.load(
            row_scales + tl.cast(tile, tl.int64) * n_columns + my_columns, my_columns < n_columns, other=0.0
        )
        total += tl.dot(left, right.T) * left_scale[:, None] * right_scale[None, :]

    targets = output + (expert.to(tl.int64) * n_rows + my_rows[:, None]) * n_columns + my_columns[None, :]
    inside = (my_rows < n_rows)[:, None] & (my_columns < n_columns)[None, :]
    tl.store(targets, total.to(output.dtype.element_ty), inside)
