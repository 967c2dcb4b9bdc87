"""What the kernels over latents in BF16 and in FP8 share: their part of all tiles, loads, weights and results."""

# Kernels are typed by what they are compiled for, and their compile-time constants are capitals.
# mypy: allow-untyped-defs
# ruff: noqa: N803, N806

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import mbarrier, tma


@gluon.jit
def _add(x, y):
    return x + y


@gluon.jit
def share_tiles(rows, NEW: gl.constexpr, ROWS: gl.constexpr, WARPS: gl.constexpr):
    """Where each row's tiles end [ROWS], and the tiles of this program: the first, and that after the last."""
    lengths, n_rows = rows
    row = gl.arange(0, ROWS, gl.BlockedLayout([1], [32], [WARPS], [0]))
    held = gl.load(lengths + row, mask=row < n_rows, other=-NEW).to(gl.int32) + NEW
    ends = gl.associative_scan((held + 63) // 64, 0, _add)
    total = gl.max(ends, 0)
    share = (total + gl.num_programs(0) - 1) // gl.num_programs(0)
    begin = gl.program_id(0) * share
    return ends, begin, gl.minimum(begin + share, total)


@gluon.jit
def piece_at(ends, tile, stop):
    """The row that `tile` belongs to, the row's first tile, and the tile after the last that is to be done of it."""
    row = gl.sum((ends <= tile).to(gl.int32), 0)
    first = gl.max(gl.where(ends <= tile, ends, 0), 0)
    return row, first, gl.minimum(gl.min(gl.where(ends > tile, ends, stop), 0), stop)


@gluon.jit
def load(cached, shared, scales, rows, NEW: gl.constexpr, ROWS: gl.constexpr, STAGES: gl.constexpr):
    """Bring one tile after the other into shared memory, with its `scales` where they are, as soon as there is room."""
    latent, rope_key, latent_row, rope_row = cached
    latents, rope_keys, empty, ready = shared
    ends, tile, stop = share_tiles(rows, NEW, ROWS, 1)
    stage = 0
    phase = 1
    while tile < stop:
        row, first, last = piece_at(ends, tile, stop)
        for number in range(tile - first, last - first):
            mbarrier.wait(empty.index(stage), phase)
            barrier = ready.index(stage)
            n_bytes: gl.constexpr = 4 * latent.block_type.nbytes + rope_key.block_type.nbytes
            if scales is None:
                mbarrier.expect(barrier, n_bytes)
            else:
                mbarrier.expect(barrier, n_bytes + scales[0].block_type.nbytes)
                at = row * scales[1] + number * 64
                tma.async_copy_global_to_shared(scales[0], [at, 0], barrier, scales[2].index(stage))
            token = row * latent_row + number * 64
            for part in gl.static_range(4):
                tma.async_copy_global_to_shared(latent, [token, 128 * part], barrier, latents.index(4 * stage + part))
            token = row * rope_row + number * 64
            tma.async_copy_global_to_shared(rope_key, [token, 0], barrier, rope_keys.index(stage))
            stage += 1
            if stage == STAGES:
                stage = 0
                phase ^= 1
        tile = last


@gluon.jit
def query_part(
    source,
    row,
    first_column,
    begin,
    WIDTH: gl.constexpr,
    PART: gl.constexpr,
    N_COLUMNS: gl.constexpr,
    COLUMNS: gl.constexpr,
):
    """PART of the WIDTH numbers of COLUMNS queries of a row, from `begin` on; zeros where there are no more queries."""
    layout: gl.constexpr = gl.BlockedLayout([1, 8], [256 // PART, PART // 8], [4, 1], [1, 0])
    column = first_column + gl.arange(0, COLUMNS, gl.SliceLayout(1, layout))
    dim = begin + gl.arange(0, PART, gl.SliceLayout(0, layout))
    at = source + (row.to(gl.int64) * N_COLUMNS + column)[:, None] * WIDTH + dim[None, :]
    return gl.load(at, (column < N_COLUMNS)[:, None], other=0.0)


@gluon.jit
def weigh(scores, token, last_seen, largest, LOWEST: gl.constexpr):
    """The largest scores so far, the factor of what was summed before, and the exponentials of `scores`."""
    scores = gl.where(token[:, None] <= last_seen[None, :], scores, LOWEST)
    larger = gl.maximum(largest, gl.max(scores, 0))
    share = gl.where(scores > LOWEST, gl.exp2(scores - larger[None, :]), 0.0)
    return larger, gl.exp2(largest - larger), share


@gluon.jit
def store(
    results,
    rows,
    row,
    column,
    dim,
    contexts,
    largest,
    total,
    N_COLUMNS: gl.constexpr,
):
    """Store what a piece of a row has come to."""
    contexts_of, weights = results
    is_column = column < N_COLUMNS
    at = (gl.program_id(0) + row).to(gl.int64) * N_COLUMNS + column
    gl.store(weights + at, largest, is_column)
    n_pieces = gl.num_programs(0) + rows[1] - 1
    gl.store(weights + n_pieces.to(gl.int64) * N_COLUMNS + at, total, is_column)
    target = contexts_of + at[None, :] * 512 + dim[:, None]
    for part in gl.static_range(4):
        gl.store(target + 128 * part, contexts[part], is_column[None, :])


@gluon.jit
def clear(latents, n_held):
    """Put zeros in place of what follows the first `n_held` of 64 latents: there might be NaN, of which 0 makes NaN."""
    layout: gl.constexpr = gl.BlockedLayout([1, 8], [2, 16], [4, 1], [1, 0])
    is_held = gl.arange(0, 64, gl.SliceLayout(1, layout)) < n_held
    latents.store(gl.where(is_held[:, None], latents.load(layout), gl.zeros([64, 128], latents.dtype, layout)))
