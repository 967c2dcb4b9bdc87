"""Absorbed attention on any GPU, for any rank: programs attend to their shares of all tiles.

Products have the tokens as their rows and the heads as their columns, for tensor cores want at least 64 rows.
"""

# Kernels are typed by what they are compiled for, and their compile-time constants are capitals.
# mypy: allow-untyped-defs
# ruff: noqa: N803, N806

import triton
import triton.language as tl

from lightning_modules.model.cache import TILE_WIDTH
from lightning_modules.model.kernels.absorbed.operands import LOWEST, TILE, Operands, Pieces

# New tokens times heads that a program attends for, at most: registers hold no more of their contexts.
MOST_COLUMNS = 64


def attend(operands: Operands, pieces: Pieces, columns: int) -> None:
    """Fill `pieces`; a program attends for `columns` of the new tokens' heads."""
    query_latent, query_rope, latent, rope_key, latent_scale, lengths, scale = operands
    n_rows, n_new, n_heads, rank = query_latent.shape
    rope_dim = rope_key.shape[-1]
    _attend[(pieces.n_programs, triton.cdiv(n_new * n_heads, columns))](
        query_latent,
        query_rope,
        latent,
        rope_key,
        latent_scale,
        lengths,
        pieces.contexts,
        pieces.weights,
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


@triton.jit
def share_tiles(lengths, n_rows, n_programs, NEW: tl.constexpr, TILE: tl.constexpr, ROWS: tl.constexpr):
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
    contexts,  # as in `Pieces`
    weights,
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
    ends, share = share_tiles(lengths, n_rows, n_programs, NEW, TILE, ROWS)
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
            contexts + column_of[None, :] * RANK + dim[:, None],
            context,
            mask=is_column[None, :] & (dim < RANK)[:, None],
        )
        tl.store(weights + column_of, largest, mask=is_column)
        n_pieces = n_programs + n_rows - 1
        tl.store(weights + n_pieces.to(tl.int64) * (NEW * HEADS) + column_of, total, mask=is_column)
        tile = row_stop
