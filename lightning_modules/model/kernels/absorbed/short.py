"""Absorbed attention over contexts so short that waiting, not reading, is what takes time.

Every row's tiles are dealt out to a fixed number of programs, whatever its length. So a program knows its first tile
and loads it before the kernel ahead has ended (see `dependent_launch`); of these it loads only new tokens afterwards.
"""

# Kernels are typed by what they are compiled for, and their compile-time constants are capitals.
# mypy: allow-untyped-defs
# ruff: noqa: N803, N806

import torch
import triton
import triton.language as tl
from torch import Tensor

from lightning_modules.model.cache import TILE_WIDTH
from lightning_modules.model.kernels.absorbed.operands import LOWEST, Operands
from lightning_modules.model.kernels.dependent_launch import dependent_launch, launch_dependents, wait_for_previous

# Tokens of a tile, and the warps that share it; programs of all rows, and tiles of a program, at most.
TILE = 64
WARPS = 8
PROGRAMS = 128
MOST_TILES = 1
# Tensor cores multiply by no fewer new tokens times heads; registers hold no more of their contexts.
FEWEST_COLUMNS, MOST_COLUMNS = 16, 32
# Numbers of all pieces of a context that a program merges.
MERGED_NUMBERS = 2048


def fits(operands: Operands) -> bool:
    """Whether what rows can hold is so short."""
    _, n_new, n_heads, _ = operands.query_latent.shape
    n_rows, capacity, _ = operands.latent.shape
    return n_rows * capacity <= PROGRAMS * MOST_TILES * TILE and n_new * n_heads <= MOST_COLUMNS


def attend(operands: Operands) -> Tensor:
    """Contexts [B, T, H, R] (see `attend_latent`)."""
    query_latent, query_rope, latent, rope_key, latent_scale, lengths, scale = operands
    n_rows, n_new, n_heads, rank = query_latent.shape
    n_columns, rope_dim, capacity = n_new * n_heads, rope_key.shape[-1], latent.shape[1]
    n_pieces = min(triton.cdiv(capacity, TILE), max(PROGRAMS // n_rows, 1))
    contexts = query_latent.new_empty(n_rows, n_columns, n_pieces, rank, dtype=torch.float32)
    largest, sums = query_latent.new_empty(2, n_rows, n_columns, n_pieces, dtype=torch.float32)
    rank_block = max(triton.next_power_of_2(rank), 16)
    launch = dependent_launch(latent.device)
    _attend[(n_pieces, n_rows)](
        query_latent,
        query_rope,
        latent,
        rope_key,
        latent_scale,
        lengths,
        contexts,
        largest,
        sums,
        scale,
        capacity,
        *latent.stride()[:2],
        *rope_key.stride()[:2],
        *((0, 0) if latent_scale is None else latent_scale.stride()[:2]),
        NEW=n_new,
        HEADS=n_heads,
        RANK=rank,
        PART=min(rank_block, TILE_WIDTH),
        ROPE=rope_dim,
        ROPE_BLOCK=max(triton.next_power_of_2(rope_dim), 16),
        TILE=TILE,
        COLUMNS=max(triton.next_power_of_2(n_columns), FEWEST_COLUMNS),
        LOWEST=LOWEST,
        num_warps=WARPS,
        **launch,
    )
    context = query_latent.new_empty(query_latent.shape)
    pieces_block = triton.next_power_of_2(n_pieces)
    block = min(rank_block, max(MERGED_NUMBERS // pieces_block, 16))
    _merge[(n_rows * n_columns, triton.cdiv(rank, block))](
        contexts,
        largest,
        sums,
        context,
        n_pieces,
        RANK=rank,
        BLOCK=block,
        PIECES_BLOCK=pieces_block,
        LOWEST=LOWEST,
        num_warps=4,
        **launch,
    )
    return context


@triton.jit
def _load(source, row, row_stride, token, token_stride, inside, first, DIM: tl.constexpr, WIDTH: tl.constexpr):
    """Numbers [tokens, WIDTH] of a row of a cache, from `first` on.

    The first cache may hold what tokens were before a kernel wrote them.
    """
    dim = first + tl.arange(0, WIDTH)
    at = source + row.to(tl.int64) * row_stride + token[:, None].to(tl.int64) * token_stride + dim[None, :]
    return tl.load(at, mask=inside[:, None] & (dim < DIM)[None, :], other=0.0, cache_modifier=".cg")


@triton.jit
def _load_tile(cached, row, token, inside, SHAPE: tl.constexpr):
    """What a row's tokens are remembered by: parts of latents, as many factors of these [tokens, 1], and keys."""
    latent, rope_key, latent_scale, latent_row, latent_token, rope_row, rope_token, scale_row, scale_token = cached
    RANK: tl.constexpr = SHAPE[0]
    PART: tl.constexpr = SHAPE[1]
    ROPE: tl.constexpr = SHAPE[2]
    ROPE_BLOCK: tl.constexpr = SHAPE[3]
    parts = ()
    factors = ()
    for part in tl.static_range((RANK + PART - 1) // PART):
        parts += (_load(latent, row, latent_row, token, latent_token, inside, part * PART, RANK, PART),)  # type: ignore[assignment]
        if latent_scale is not None:
            at = latent_scale + row.to(tl.int64) * scale_row + token.to(tl.int64) * scale_token + part
            factors += (tl.load(at, mask=inside, other=0.0, cache_modifier=".cg")[:, None],)  # type: ignore[assignment]
    return parts, factors, _load(rope_key, row, rope_row, token, rope_token, inside, 0, ROPE, ROPE_BLOCK)


@triton.jit
def _choose_each(condition, some, others, N: tl.constexpr):
    """`tl.where` of each of N tensors."""
    chosen = ()
    for number in tl.static_range(N):
        chosen += (tl.where(condition, some[number], others[number]),)  # type: ignore[assignment]
    return chosen


@triton.jit
def _attend(
    query_latent,  # [B, T, H, R]
    query_rope,  # [B, T, H, P]
    latent,  # [B, S, R]
    rope_key,  # [B, S, P]
    latent_scale,  # [B, S, ⌈R / PART⌉], or None
    lengths,  # [B]
    contexts,  # FP32 [B, T · H, pieces, R] sums of latents by the exponentials of their scores
    maxima,  # FP32 [B, T · H, pieces] of the scores
    sums,  # FP32 [B, T · H, pieces] of the exponentials
    scale,  # of scores whose exponentials are powers of two
    capacity,
    latent_row,  # strides
    latent_token,
    rope_row,
    rope_token,
    scale_row,
    scale_token,
    NEW: tl.constexpr,
    HEADS: tl.constexpr,
    RANK: tl.constexpr,
    PART: tl.constexpr,
    ROPE: tl.constexpr,
    ROPE_BLOCK: tl.constexpr,
    TILE: tl.constexpr,
    COLUMNS: tl.constexpr,
    LOWEST: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """Attend to every so many-th tile of a row; parts of latents are multiplied side by side, each by itself."""
    PARTS: tl.constexpr = (RANK + PART - 1) // PART
    FACTORS: tl.constexpr = PARTS if latent_scale is not None else 0
    SHAPE: tl.constexpr = (RANK, PART, ROPE, ROPE_BLOCK)
    cached = (
        latent, rope_key, latent_scale, latent_row, latent_token, rope_row, rope_token, scale_row, scale_token
    )  # fmt: skip
    first_tile = tl.program_id(0)
    n_pieces = tl.num_programs(0)
    row = tl.program_id(1)
    column = tl.arange(0, COLUMNS)
    is_column = column < NEW * HEADS
    token = first_tile * TILE + tl.arange(0, TILE)
    parts, factors, key = _load_tile(cached, row, token, token < capacity, SHAPE)
    # What was there before the step's first kernel can be read: none before that one lets another begin early.
    length = tl.load(lengths + row).to(tl.int32)
    stop = length + NEW
    last_seen = length + column // HEADS
    wait_for_previous(DEPENDENT)
    # Not before: kernels that begin far ahead take room from those that others wait for.
    launch_dependents(DEPENDENT)
    query = row.to(tl.int64) * (NEW * HEADS) + column
    of_latent = ()
    for part in tl.static_range(PARTS):
        dim = part * PART + tl.arange(0, PART)
        at = query_latent + query[:, None] * RANK + dim[None, :]
        of_latent += (tl.load(at, mask=is_column[:, None] & (dim < RANK)[None, :], other=0.0),)  # type: ignore[assignment]
    dim = tl.arange(0, ROPE_BLOCK)
    at = query_rope + query[:, None] * ROPE + dim[None, :]
    of_rope = tl.load(at, mask=is_column[:, None] & (dim < ROPE)[None, :], other=0.0)
    new = _load_tile(cached, row, token, (token >= length) & (token < stop), SHAPE)
    is_old = (token < length)[:, None]
    parts = _choose_each(is_old, parts, new[0], PARTS)
    factors = _choose_each(is_old, factors, new[1], FACTORS)
    key = tl.where(is_old, key, new[2])
    largest = tl.full([COLUMNS], LOWEST, tl.float32)
    total = tl.zeros([COLUMNS], tl.float32)
    context = ()
    for _ in tl.static_range(PARTS):
        context += (tl.zeros([COLUMNS, PART], tl.float32),)  # type: ignore[assignment]
    for begin in tl.range(first_tile * TILE, stop, n_pieces * TILE):
        token = begin + tl.arange(0, TILE)
        if begin > first_tile * TILE:
            parts, factors, key = _load_tile(cached, row, token, token < stop, SHAPE)
        values = ()
        scores = tl.dot(of_rope, tl.trans(key), input_precision="ieee")
        for part in tl.static_range(PARTS):
            value = parts[part]
            if latent_scale is not None:
                value = (value.to(tl.float32) * factors[part]).to(of_rope.dtype)
            values += (value,)  # type: ignore[assignment]
            scores += tl.dot(of_latent[part], tl.trans(value), input_precision="ieee")
        scores = tl.where(token[None, :] <= last_seen[:, None], scores * scale, LOWEST)
        larger = tl.maximum(largest, tl.max(scores, axis=1))
        shrunk = tl.exp2(largest - larger)
        # Where nothing has been seen yet, every score is the largest.
        share = tl.where(scores > LOWEST, tl.exp2(scores - larger[:, None]), 0.0)
        total = total * shrunk + tl.sum(share, axis=1)
        grown = ()
        for part in tl.static_range(PARTS):
            shares = share.to(of_rope.dtype)
            grown += (tl.dot(shares, values[part], context[part] * shrunk[:, None], input_precision="ieee"),)  # type: ignore[assignment]
        context = grown
        largest = larger
    of_piece = query * n_pieces + first_tile
    for part in tl.static_range(PARTS):
        dim = part * PART + tl.arange(0, PART)
        at = contexts + of_piece[:, None] * RANK + dim[None, :]
        tl.store(at, context[part], mask=is_column[:, None] & (dim < RANK)[None, :])
    tl.store(maxima + of_piece, largest, mask=is_column)
    tl.store(sums + of_piece, total, mask=is_column)


@triton.jit
def _merge(
    contexts,  # as above
    maxima,
    sums,
    context,  # [B, T, H, R]
    n_pieces,
    RANK: tl.constexpr,
    BLOCK: tl.constexpr,
    PIECES_BLOCK: tl.constexpr,
    LOWEST: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """Merge BLOCK numbers of the context of one head of one new token."""
    launch_dependents(DEPENDENT)
    query = tl.program_id(0).to(tl.int64)
    dim = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    piece = tl.arange(0, PIECES_BLOCK)
    is_piece = piece < n_pieces
    of_piece = query * n_pieces + piece
    is_number = is_piece[:, None] & (dim < RANK)[None, :]
    wait_for_previous(DEPENDENT)
    largest = tl.load(maxima + of_piece, mask=is_piece, other=LOWEST)
    total = tl.load(sums + of_piece, mask=is_piece, other=0.0)
    numbers = tl.load(contexts + of_piece[:, None] * RANK + dim[None, :], mask=is_number, other=0.0)
    factor = tl.exp2(largest - tl.max(largest, axis=0))
    merged = tl.sum(numbers * factor[:, None], axis=0) / tl.sum(total * factor, axis=0)
    tl.store(context + query * RANK + dim, merged.to(context.dtype.element_ty), mask=dim < RANK)
