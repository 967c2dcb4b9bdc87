"""Attention over latents in BF16: one warp loads tiles of 64 tokens, four multiply and weigh them."""

# Kernels are typed by what they are compiled for, and their compile-time constants are capitals.
# mypy: allow-untyped-defs
# ruff: noqa: N803, N806

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    warpgroup_mma,
    warpgroup_mma_wait,
)

from lightning_modules.model.kernels.absorbed.hopper_tiles import (
    clear,
    load,
    piece_at,
    query_part,
    share_tiles,
    store,
    weigh,
)

# Tiles of latents and keys that shared memory has room for.
STAGES = gl.constexpr(2)


@gluon.jit
def attend(
    query_latent,  # [B, T, H, 512]
    query_rope,  # [B, T, H, 64]
    latent,  # descriptor of [tokens, 512] in blocks of 64×128
    rope_key,  # descriptor of [tokens, 64] in blocks of 64×64
    latent_row,  # tokens by which rows lie apart
    rope_row,
    lengths,  # [B]
    contexts,  # as in `Pieces`
    weights,
    scale,  # of scores whose exponentials are powers of two
    n_rows,
    NEW: gl.constexpr,
    HEADS: gl.constexpr,
    ROWS: gl.constexpr,
    LOWEST: gl.constexpr,
    COLUMNS: gl.constexpr,
    num_warps: gl.constexpr,
):
    """Attend to a program's share of all tiles, for COLUMNS of the new tokens' heads."""
    latents = gl.allocate_shared_memory(gl.bfloat16, [4 * STAGES, 64, 128], latent.layout)
    rope_keys = gl.allocate_shared_memory(gl.bfloat16, [STAGES, 64, 64], rope_key.layout)
    empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    ready = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for stage in gl.static_range(STAGES):
        mbarrier.init(empty.index(stage), count=1)
        mbarrier.init(ready.index(stage), count=1)
    rows = (lengths, n_rows)
    queries = (query_latent, query_rope, scale)
    results = (contexts, weights)
    cached = (latent, rope_key, latent_row, rope_row)
    shared = (latents, rope_keys, empty, ready)
    gl.warp_specialize(
        [
            (_attend, (queries, rows, results, shared, NEW, HEADS, ROWS, LOWEST, COLUMNS)),
            (load, (cached, shared, None, rows, NEW, ROWS, STAGES)),
        ],
        [1],
        [40],
    )


@gluon.jit
def _attend(
    queries,
    rows,
    results,
    shared,
    NEW: gl.constexpr,
    HEADS: gl.constexpr,
    ROWS: gl.constexpr,
    LOWEST: gl.constexpr,
    COLUMNS: gl.constexpr,
):
    """Attend to one tile after the other, for COLUMNS queries of a row."""
    query_latent, query_rope, scale = queries
    latents, rope_keys, empty, ready = shared
    layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, COLUMNS, 16])
    wide: gl.constexpr = gl.NVMMASharedLayout(128, 16, 2)
    narrow: gl.constexpr = gl.NVMMASharedLayout.get_default_for([64, COLUMNS], gl.bfloat16)
    of_latent = gl.allocate_shared_memory(gl.bfloat16, [4, COLUMNS, 128], wide)
    of_rope = gl.allocate_shared_memory(gl.bfloat16, [COLUMNS, 64], wide)
    shares = gl.allocate_shared_memory(gl.bfloat16, [64, COLUMNS], narrow)
    dim = gl.arange(0, 128, gl.SliceLayout(1, layout))
    place = gl.arange(0, 64, gl.SliceLayout(1, layout))
    first_column = gl.program_id(1) * COLUMNS
    column = first_column + gl.arange(0, COLUMNS, gl.SliceLayout(0, layout))
    ends, tile, stop = share_tiles(rows, NEW, ROWS, 4)
    stage = 0
    phase = 0
    while tile < stop:
        row, first, last = piece_at(ends, tile, stop)
        length = gl.load(rows[0] + row).to(gl.int32)
        last_seen = length + column // HEADS
        for part in gl.static_range(4):
            query = query_part(query_latent, row, first_column, 128 * part, 512, 128, NEW * HEADS, COLUMNS)
            of_latent.index(part).store(query)
        of_rope.store(query_part(query_rope, row, first_column, 0, 64, 64, NEW * HEADS, COLUMNS))
        fence_async_shared()
        gl.thread_barrier()
        nothing = gl.zeros([64, COLUMNS], gl.float32, layout)
        largest = gl.full([COLUMNS], LOWEST, gl.float32, gl.SliceLayout(0, layout))
        total = gl.zeros([64, COLUMNS], gl.float32, layout)
        context_0 = gl.zeros([128, COLUMNS], gl.float32, layout)
        context_1 = gl.zeros([128, COLUMNS], gl.float32, layout)
        context_2 = gl.zeros([128, COLUMNS], gl.float32, layout)
        context_3 = gl.zeros([128, COLUMNS], gl.float32, layout)
        for number in range(tile - first, last - first):
            mbarrier.wait(ready.index(stage), phase)
            transposed = of_rope.permute((1, 0))
            scores = warpgroup_mma(rope_keys.index(stage), transposed, nothing, use_acc=False, is_async=True)
            for part in gl.static_range(4):
                transposed = of_latent.index(part).permute((1, 0))
                scores = warpgroup_mma(latents.index(4 * stage + part), transposed, scores, is_async=True)
            scores = warpgroup_mma_wait(0, [scores])
            larger, shrunk, share = weigh(scores * scale, number * 64 + place, last_seen, largest, LOWEST)
            largest = larger
            shrunk = shrunk[None, :]
            total = total * shrunk + share
            n_held = length + NEW - number * 64
            if n_held < 64:
                for part in gl.static_range(4):
                    clear(latents.index(4 * stage + part), n_held)
            shares.store(share.to(gl.bfloat16))
            fence_async_shared()
            gl.thread_barrier()
            of_part = latents.index(4 * stage).permute((1, 0))
            context_0 = warpgroup_mma(of_part, shares, context_0 * shrunk, is_async=True)
            of_part = latents.index(4 * stage + 1).permute((1, 0))
            context_1 = warpgroup_mma(of_part, shares, context_1 * shrunk, is_async=True)
            of_part = latents.index(4 * stage + 2).permute((1, 0))
            context_2 = warpgroup_mma(of_part, shares, context_2 * shrunk, is_async=True)
            of_part = latents.index(4 * stage + 3).permute((1, 0))
            context_3 = warpgroup_mma(of_part, shares, context_3 * shrunk, is_async=True)
            context_0, context_1, context_2, context_3 = warpgroup_mma_wait(
                0, [context_0, context_1, context_2, context_3]
            )
            gl.thread_barrier()
            mbarrier.arrive(empty.index(stage), count=1)
            stage += 1
            if stage == STAGES:
                stage = 0
                phase ^= 1
        contexts = (context_0, context_1, context_2, context_3)
        store(results, rows, row, column, dim, contexts, largest, gl.sum(total, 0), NEW * HEADS)
        tile = last
