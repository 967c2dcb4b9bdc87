"""Attention of a few new tokens of each row over the latent cache, as decoding needs it.

W_UK is in the queries already, and W_UV is to follow (see `LatentAttention._attend_absorbed`): all heads attend to the
same latents, which are keys and values at once, so that each is read once. Suffixes as in `attention.py`.

What all rows hold is cut into tiles of tokens, and every program takes an equal share of all tiles, however long each
row is: a piece of one row, or pieces of several. The pieces of a row are merged afterwards. Lengths are read on the
GPU alone, and neither grids nor memory depend on them.

Products have the tokens as their rows and the heads as their columns, for tensor cores want at least 64 rows.
"""

# Kernels are typed by what they are compiled for, and their compile-time constants are capitals.
# mypy: allow-untyped-defs
# ruff: noqa: N803, N806

import math
from functools import cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from lightning_modules.model.cache import TILE_WIDTH
from lightning_modules.model.kernels import hopper_latent_attention as hopper

# Tokens of a tile.
TILE = 64
# New tokens times heads that a program attends for, at most: registers hold no more of their contexts.
MOST_COLUMNS = 64
# Scores this low count nothing; infinity would make NaN of a tile that a query sees nothing of.
LOWEST = -1e30
# Pieces of a row, and numbers of them all, that a program merges at once.
MOST_MERGED = 32
MERGED_NUMBERS = 2048


def attend_latent(
    query_latent: Tensor,
    query_rope: Tensor,
    latent: Tensor,
    rope_key: Tensor,
    lengths: Tensor,
    scale: float,
    latent_scale: Tensor | None = None,
) -> Tensor:
    """Contexts [B, T, H, R] of T new tokens a row, which are the last of the `lengths[b] + T` that row b holds.

    Args:
        query_latent: [B, T, H, R] queries times W_UK.
        query_rope: [B, T, H, P] their rotated parts.
        latent: [B, S, R] the cache of a layer, the new tokens included; in FP8 with `latent_scale`.
        rope_key: [B, S, P] its rotated keys.
        lengths: [B] tokens that each row held before, on the GPU.
        scale: of the scores.
        latent_scale: FP32 [B, S, ⌈R / 128⌉], as `quantise_tiles` makes them; None: the latents are not in FP8.
    """
    n_rows, n_new, n_heads, rank = query_latent.shape
    n_columns = n_new * n_heads
    is_for_hopper = hopper.fits(query_latent, latent, rope_key)
    columns = min(max(triton.next_power_of_2(n_columns), 16), hopper.MOST_COLUMNS if is_for_hopper else MOST_COLUMNS)
    column_tiles = triton.cdiv(n_columns, columns)
    n_programs = max(_n_multiprocessors(latent.device) // column_tiles, 1)
    # Programs and rows follow each other in one order, so that their sum numbers the pieces.
    pieces = query_latent.new_empty(n_programs + n_rows - 1, n_columns, rank, dtype=torch.float32)
    weights = query_latent.new_empty(2, n_programs + n_rows - 1, n_columns, dtype=torch.float32)
    launch = hopper.launch if is_for_hopper else _launch
    launch(
        (n_programs, column_tiles),
        columns,
        query_latent.contiguous(),
        query_rope.contiguous(),
        latent,
        rope_key,
        latent_scale,
        lengths,
        pieces,
        weights,
        scale * math.log2(math.e),
    )
    return _merged(pieces, weights, lengths, n_programs, torch.empty_like(query_latent, dtype=query_rope.dtype))


def _launch(
    grid: tuple[int, int],
    columns: int,
    query_latent: Tensor,
    query_rope: Tensor,
    latent: Tensor,
    rope_key: Tensor,
    latent_scale: Tensor | None,
    lengths: Tensor,
    pieces: Tensor,
    weights: Tensor,
    scale: float,
) -> None:
    """Fill `pieces` and `weights` (see `_attend`) on any GPU."""
    n_rows, n_new, n_heads, rank = query_latent.shape
    rope_dim = rope_key.shape[-1]
    _attend[grid](
        query_latent,
        query_rope,
        latent,
        rope_key,
        latent_scale,
        lengths,
        pieces,
        weights,
        scale,
        n_rows,
        *latent.stride()[:2],
        *rope_key.stride()[:2],
        *((0, 0) if latent_scale is None else latent_scale.stride()[:2]),
        NEW=n_new,
        HEADS=n_heads,
        RANK=rank,
        ROPE=rope_dim,
        TILE=TILE,
        ROWS=triton.next_power_of_2(n_rows),
        RANK_BLOCK=max(triton.next_power_of_2(rank), 16),
        ROPE_BLOCK=max(triton.next_power_of_2(rope_dim), 16),
        COLUMNS=columns,
        SCALED=TILE_WIDTH,
        LOWEST=LOWEST,
        num_warps=4 if columns <= 32 and latent_scale is None else 8,
        num_stages=2,
    )


def _merged(pieces: Tensor, weights: Tensor, lengths: Tensor, n_programs: int, context: Tensor) -> Tensor:
    """Fill `context` [B, T, H, R] with the merged pieces of every row."""
    n_rows, n_new, n_heads, rank = context.shape
    # About as many pieces as a row has, unless rows differ, and so many numbers that few programs wait for memory.
    merged = min(triton.next_power_of_2(triton.cdiv(n_programs, n_rows) + 1), MOST_MERGED)
    block = min(triton.next_power_of_2(rank), max(MERGED_NUMBERS // merged, 16))
    _merge[(n_rows * n_new * n_heads, triton.cdiv(rank, block))](
        pieces,
        weights,
        lengths,
        context,
        n_rows,
        n_programs,
        NEW=n_new,
        HEADS=n_heads,
        RANK=rank,
        TILE=TILE,
        ROWS=triton.next_power_of_2(n_rows),
        BLOCK=block,
        MERGED=merged,
        num_warps=4,
    )
    return context


@cache
def _n_multiprocessors(device: torch.device) -> int:
    """As many programs run at once; under Triton's interpreter, a few."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 5


@triton.jit
def _share_tiles(lengths, n_rows, n_programs, NEW: tl.constexpr, TILE: tl.constexpr, ROWS: tl.constexpr):
    """Where each row's tiles end [ROWS], counted over all rows, and how many tiles a program takes."""
    row = tl.arange(0, ROWS)
    held = tl.load(lengths + row, mask=row < n_rows, other=-NEW).to(tl.int32) + NEW
    ends = tl.cumsum(tl.cdiv(held, TILE), axis=0)
    return ends, tl.cdiv(tl.max(ends), n_programs)


@triton.jit
def _attend(
    query_latent,  # [B, T, H, R]
    query_rope,  # [B, T, H, P]
    latent,  # [B, S, R]
    rope_key,  # [B, S, P]
    latent_scale,  # [B, S, ⌈R / SCALED⌉], or None
    lengths,  # [B]
    pieces,  # FP32 [programs + B - 1, T · H, R], the contexts of pieces of rows
    weights,  # FP32 [2, programs + B - 1, T · H], their scores' maxima and sums
    scale,  # of scores whose exponentials are powers of two
    n_rows,
    latent_row,  # strides
    latent_token,
    rope_row,
    rope_token,
    scale_row,
    scale_token,
    NEW: tl.constexpr,
    HEADS: tl.constexpr,
    RANK: tl.constexpr,
    ROPE: tl.constexpr,
    TILE: tl.constexpr,
    ROWS: tl.constexpr,
    RANK_BLOCK: tl.constexpr,
    ROPE_BLOCK: tl.constexpr,
    COLUMNS: tl.constexpr,
    SCALED: tl.constexpr,
    LOWEST: tl.constexpr,
):
    """Attend to a program's share of all tiles, for COLUMNS of the new tokens' heads."""
    program = tl.program_id(0)
    n_programs = tl.num_programs(0)
    ends, share = _share_tiles(lengths, n_rows, n_programs, NEW, TILE, ROWS)
    tile = program * share
    stop = tl.minimum(tile + share, tl.max(ends))
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    is_column = column < NEW * HEADS
    dim = tl.arange(0, RANK_BLOCK)
    rope_dim = tl.arange(0, ROPE_BLOCK)
    place = tl.arange(0, TILE)
    SCALED_TILES: tl.constexpr = (RANK_BLOCK + SCALED - 1) // SCALED
    scaled_tile = tl.arange(0, SCALED_TILES)
    while tile < stop:
        row = tl.sum((ends <= tile).to(tl.int32), axis=0)
        row_start = tl.max(tl.where(ends <= tile, ends, 0), axis=0)
        row_stop = tl.minimum(tl.min(tl.where(ends > tile, ends, stop), axis=0), stop)
        length = tl.load(lengths + row).to(tl.int32)
        wide_row = row.to(tl.int64)
        query = wide_row * (NEW * HEADS) + column
        of_latent = tl.load(
            query_latent + query[None, :] * RANK + dim[:, None],
            mask=is_column[None, :] & (dim < RANK)[:, None],
            other=0.0,
        )
        of_rope = tl.load(
            query_rope + query[None, :] * ROPE + rope_dim[:, None],
            mask=is_column[None, :] & (rope_dim < ROPE)[:, None],
            other=0.0,
        )
        last_seen = length + column // HEADS
        largest = tl.full([COLUMNS], LOWEST, tl.float32)
        total = tl.zeros([COLUMNS], tl.float32)
        context = tl.zeros([RANK_BLOCK, COLUMNS], tl.float32)
        for number in tl.range(tile - row_start, row_stop - row_start):
            token = number * TILE + place
            inside = (token < length + NEW)[:, None]
            key = tl.load(
                rope_key + wide_row * rope_row + token[:, None].to(tl.int64) * rope_token + rope_dim[None, :],
                mask=inside & (rope_dim < ROPE)[None, :],
                other=0.0,
            )
            held = tl.load(
                latent + wide_row * latent_row + token[:, None].to(tl.int64) * latent_token + dim[None, :],
                mask=inside & (dim < RANK)[None, :],
                other=0.0,
            )
            if latent_scale is not None:
                factors = tl.load(
                    latent_scale
                    + wide_row * scale_row
                    + token[:, None].to(tl.int64) * scale_token
                    + scaled_tile[None, :],
                    mask=inside & (scaled_tile * SCALED < RANK)[None, :],
                    other=0.0,
                )
                factors = tl.broadcast_to(factors[:, :, None], [TILE, SCALED_TILES, RANK_BLOCK // SCALED_TILES])
                held = held.to(tl.float32) * tl.reshape(factors, [TILE, RANK_BLOCK])
                held = held.to(of_latent.dtype)
            scores = tl.dot(held, of_latent, input_precision="ieee")
            scores = tl.dot(key, of_rope, scores, input_precision="ieee")
            scores = tl.where(token[:, None] <= last_seen[None, :], scores * scale, LOWEST)
            larger = tl.maximum(largest, tl.max(scores, axis=0))
            shrunk = tl.exp2(largest - larger)
            # Where nothing has been seen yet, every score is the largest.
            share_of = tl.where(scores > LOWEST, tl.exp2(scores - larger[None, :]), 0.0)
            total = total * shrunk + tl.sum(share_of, axis=0)
            context = context * shrunk[None, :]
            context = tl.dot(tl.trans(held), share_of.to(held.dtype), context, input_precision="ieee")
            largest = larger
        piece = (program + row).to(tl.int64)
        column_of = piece * (NEW * HEADS) + column
        tl.store(
            pieces + column_of[None, :] * RANK + dim[:, None], context, mask=is_column[None, :] & (dim < RANK)[:, None]
        )
        tl.store(weights + column_of, largest, mask=is_column)
        n_pieces = n_programs + n_rows - 1
        tl.store(weights + n_pieces.to(tl.int64) * (NEW * HEADS) + column_of, total, mask=is_column)
        tile = row_stop


@triton.jit
def _merge(
    pieces,  # as in `_attend`
    weights,
    lengths,
    context,  # [B, T, H, R]
    n_rows,
    n_programs,
    NEW: tl.constexpr,
    HEADS: tl.constexpr,
    RANK: tl.constexpr,
    TILE: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    MERGED: tl.constexpr,
):
    """Merge BLOCK numbers of the context of one head of one new token."""
    query = tl.program_id(0)
    row = query // (NEW * HEADS)
    column = query % (NEW * HEADS)
    ends, share = _share_tiles(lengths, n_rows, n_programs, NEW, TILE, ROWS)
    rows = tl.arange(0, ROWS)
    start = tl.max(tl.where(rows < row, ends, 0), axis=0)
    stop = tl.max(tl.where(rows <= row, ends, 0), axis=0)
    first = start // share
    n_pieces = (stop - 1) // share + 1 - first
    of_sums = weights + (n_programs + n_rows - 1).to(tl.int64) * (NEW * HEADS)
    dim = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    largest = float("-inf")
    total = 0.0
    merged = tl.zeros([BLOCK], tl.float32)
    for begin in range(0, n_pieces, MERGED):
        number = begin + tl.arange(0, MERGED)
        inside = number < n_pieces
        place = (row + first + number).to(tl.int64) * (NEW * HEADS) + column
        maxima = tl.load(weights + place, mask=inside, other=float("-inf"))
        sums = tl.load(of_sums + place, mask=inside, other=0.0)
        part = tl.load(
            pieces + place[:, None] * RANK + dim[None, :], mask=inside[:, None] & (dim < RANK)[None, :], other=0.0
        )
        larger = tl.maximum(largest, tl.max(maxima, axis=0))
        shrunk = tl.exp2(largest - larger)
        factor = tl.exp2(maxima - larger)
        total = total * shrunk + tl.sum(sums * factor, axis=0)
        merged = merged * shrunk + tl.sum(part * factor[:, None], axis=0)
        largest = larger
    at = context + query.to(tl.int64) * RANK + dim
    tl.store(at, (merged / total).to(context.dtype.element_ty), mask=dim < RANK)
