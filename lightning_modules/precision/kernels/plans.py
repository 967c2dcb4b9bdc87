"""Triton kernels that lay out routed rows in tiles of 128, none of which holds rows of two experts.

Every tile learns whose it is (`experts`, -1: nobody's) and which choice each of its rows is (`choices`, -1: none), and
every choice its row (`places`). `spans` tells which tiles are whose, the longest first: programs that take one product
over them after the other then finish together.
"""

# Kernels are typed by what they are compiled for, and their compile-time constants are capitals.
# mypy: allow-untyped-defs
# ruff: noqa: N803

import triton
import triton.language as tl


@triton.jit
def count_choices(
    indices,  # [n_choices] the experts
    counts,  # [n_blocks, n_experts] int32
    n_choices,
    n_experts,
    BLOCK: tl.constexpr,
    EXPERTS: tl.constexpr,
):
    """How many of every BLOCK choices name each expert."""
    choice = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    expert = tl.load(indices + choice, choice < n_choices, other=-1).to(tl.int32)
    numbers = tl.arange(0, EXPERTS)
    count = tl.sum((expert[:, None] == numbers[None, :]).to(tl.int32), 0)
    tl.store(counts + tl.program_id(0) * n_experts + numbers, count, numbers < n_experts)


@triton.jit
def _store_spans(spans, tiles, tiles_until, n_experts, n_tiles, EXPERTS: tl.constexpr):
    """Write an expert, its first tile and the one behind its last, of those with most tiles first.

    There are no tiles from `n_tiles` on.
    """
    numbers = tl.arange(0, EXPERTS)
    keys = (tiles.to(tl.int64) << 42) | ((tiles_until - tiles).to(tl.int64) << 21) | numbers
    keys = tl.sort(tl.where(numbers < n_experts, keys, -1), descending=True)
    first = (keys >> 21) & 0x1FFFFF
    end = tl.minimum(first + (keys >> 42), n_tiles)
    tl.store(spans + 3 * numbers, (keys & 0x1FFFFF).to(tl.int32), numbers < n_experts)
    tl.store(spans + 3 * numbers + 1, tl.minimum(first, n_tiles).to(tl.int32), numbers < n_experts)
    tl.store(spans + 3 * numbers + 2, end.to(tl.int32), numbers < n_experts)


@triton.jit
def plan_choices(
    indices,  # [n_choices] the experts; below zero: none
    counts,  # [n_blocks, n_experts] from `count_choices`
    choices,  # [n_tiles · TILE] int32, all -1
    places,  # [n_choices] int32
    experts,  # [n_tiles] int32
    spans,  # [n_experts, 3] int32
    n_choices,
    n_experts,
    n_blocks,
    n_tiles,
    BLOCK: tl.constexpr,
    EXPERTS: tl.constexpr,
    TILE: tl.constexpr,
    COUNTED: tl.constexpr,
    TILES: tl.constexpr,
):
    """Lay out choices in their own order within each expert: a program those of one block, and TILES tiles' experts.

    Choices behind the last tile have no place. COUNTED blocks' counts are added up at a time.
    """
    block = tl.program_id(0)
    numbers = tl.arange(0, EXPERTS)
    total = tl.zeros([EXPERTS], tl.int32)
    before = tl.zeros([EXPERTS], tl.int32)
    for first in range(0, n_blocks, COUNTED):
        others = first + tl.arange(0, COUNTED)
        inside = (others < n_blocks)[:, None] & (numbers < n_experts)[None, :]
        count = tl.load(counts + others[:, None] * n_experts + numbers[None, :], inside, other=0)
        total += tl.sum(count, 0)
        before += tl.sum(tl.where((others < block)[:, None], count, 0), 0)
    tiles = tl.cdiv(total, TILE)
    tiles_until = tl.cumsum(tiles, 0)
    n_used = tl.sum(tiles, 0)

    choice = block * BLOCK + tl.arange(0, BLOCK)
    expert = tl.load(indices + choice, choice < n_choices, other=-1).to(tl.int32)
    is_own = (expert[:, None] == numbers[None, :]).to(tl.int32)
    rank = tl.cumsum(is_own, 0) - is_own
    place = tl.sum(is_own * (((tiles_until - tiles) * TILE + before)[None, :] + rank), 1)
    has_place = (expert >= 0) & (place < n_tiles * TILE)
    tl.store(places + choice, tl.where(has_place, place, -1), choice < n_choices)
    tl.store(choices + place, choice, has_place)

    tile = block * TILES + tl.arange(0, TILES)
    owner = tl.sum(((tiles_until[None, :] <= tile[:, None]) & (numbers < n_experts)[None, :]).to(tl.int32), 1)
    tl.store(experts + tile, tl.where(tile < n_used, owner, -1), tile < n_tiles)
    if block == 0:
        _store_spans(spans, tiles, tiles_until, n_experts, n_tiles, EXPERTS)


@triton.jit
def plan_rows(
    offsets,  # [n_experts] int32, where each expert's rows end
    choices,  # [n_tiles · TILE] int32
    places,  # [n_rows] int32, all -1
    experts,  # [n_tiles] int32
    spans,  # [n_experts, 3] int32
    n_experts,
    TILE: tl.constexpr,
    EXPERTS: tl.constexpr,
):
    """Lay out rows that are in order of experts already, each its own choice: a program those of one tile."""
    tile = tl.program_id(0)
    numbers = tl.arange(0, EXPERTS)
    ends = tl.load(offsets + numbers, numbers < n_experts, other=0)
    starts = tl.load(offsets + numbers - 1, (numbers > 0) & (numbers < n_experts), other=0)
    tiles = tl.where(numbers < n_experts, tl.cdiv(ends - starts, TILE), 0)
    tiles_until = tl.cumsum(tiles, 0)
    if tile == 0:
        _store_spans(spans, tiles, tiles_until, n_experts, tl.num_programs(0), EXPERTS)
    mine = (tiles_until > tile) & (tiles_until - tiles <= tile)
    is_used = tl.sum(mine.to(tl.int32), 0)
    first = tl.sum(tl.where(mine, starts + (tile - (tiles_until - tiles)) * TILE, 0), 0)
    end = tl.sum(tl.where(mine, ends, 0), 0)
    tl.store(experts + tile, tl.sum(tl.where(mine, numbers, 0), 0) + is_used - 1)
    row = first + tl.arange(0, TILE)
    place = tile * TILE + tl.arange(0, TILE)
    tl.store(choices + place, tl.where(row < end, row, -1))
    tl.store(places + row, place, row < end)
