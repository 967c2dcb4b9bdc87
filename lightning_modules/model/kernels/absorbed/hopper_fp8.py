"""Attention over latents in FP8: one warp loads tiles of 64 tokens, four multiply and weigh them.

For scores, latents are multiplied as they are by queries in FP8 too, each number of which is the sum of two: no less
exact than BF16. Values are turned into FP16, which is exact, on their way to registers, where tensor cores take them:
shared memory, through which all that is multiplied passes, would not keep up with a second copy there. Scales of
latents' tiles stay outside of the products. Two programs share a multiprocessor: one multiplies while the other weighs.
"""

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

# New tokens times heads of a program.
N_COLUMNS = 16
COLUMNS = gl.constexpr(N_COLUMNS)
E4M3_LARGEST = gl.constexpr(448.0)
SMALLEST = gl.constexpr(1e-30)


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
    latent_scale,  # descriptor of FP32 [tokens, 4] in blocks of 64×4
    scale_row,  # tokens by which rows lie apart
    NEW: gl.constexpr,
    HEADS: gl.constexpr,
    ROWS: gl.constexpr,
    LOWEST: gl.constexpr,
    STAGES: gl.constexpr,  # tiles of latents and keys that shared memory has room for
    num_warps: gl.constexpr,
):
    """Attend to a program's share of all tiles, for 16 of the new tokens' heads."""
    latents = gl.allocate_shared_memory(gl.float8e4nv, [4 * STAGES, 64, 128], latent.layout)
    rope_keys = gl.allocate_shared_memory(gl.bfloat16, [STAGES, 64, 64], rope_key.layout)
    tile_scales = gl.allocate_shared_memory(gl.float32, [STAGES, 64, 4], latent_scale.layout)
    empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    ready = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for stage in gl.static_range(STAGES):
        mbarrier.init(empty.index(stage), count=1)
        mbarrier.init(ready.index(stage), count=1)
    rows = (lengths, n_rows)
    queries = (query_latent, query_rope, scale)
    scales = (latent_scale, scale_row, tile_scales)
    shared = (latents, rope_keys, empty, ready)
    gl.warp_specialize(
        [
            (_attend, (queries, rows, (contexts, weights), tile_scales, shared, NEW, HEADS, ROWS, LOWEST, STAGES)),
            (load, ((latent, rope_key, latent_row, rope_row), shared, scales, rows, NEW, ROWS, STAGES)),
        ],
        [1],
        [40],
    )


@gluon.jit
def _attend(
    queries,
    rows,
    results,
    tile_scales,
    shared,
    NEW: gl.constexpr,
    HEADS: gl.constexpr,
    ROWS: gl.constexpr,
    LOWEST: gl.constexpr,
    STAGES: gl.constexpr,
):
    """Attend to one tile after the other, for 16 queries of a row."""
    query_latent, query_rope, scale = queries
    latents, rope_keys, empty, ready = shared
    layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, COLUMNS, 16])
    narrow: gl.constexpr = gl.NVMMASharedLayout.get_default_for([64, COLUMNS], gl.bfloat16)
    of_latent = gl.allocate_shared_memory(gl.float8e4nv, [4, 2 * COLUMNS, 128], gl.NVMMASharedLayout(128, 8, 2))
    of_rope = gl.allocate_shared_memory(gl.bfloat16, [COLUMNS, 64], gl.NVMMASharedLayout(128, 16, 2))
    shares = gl.allocate_shared_memory(gl.float16, [4, 64, COLUMNS], narrow)
    # Which number of a part each row of a context is: see `_values`.
    dim = gl.arange(0, 128, gl.SliceLayout(1, layout))
    dim = dim // 16 % 4 * 32 + dim % 8 * 4 + dim // 64 * 2 + dim // 8 % 2
    place = gl.arange(0, 64, gl.SliceLayout(1, layout))
    first_column = gl.program_id(1) * COLUMNS
    column = first_column + gl.arange(0, COLUMNS, gl.SliceLayout(0, layout))
    ends, tile, stop = share_tiles(rows, NEW, ROWS, 4)
    stage = 0
    phase = 0
    while tile < stop:
        row, first, last = piece_at(ends, tile, stop)
        begin = tile - first
        end = last - first
        length = gl.load(rows[0] + row).to(gl.int32)
        last_seen = length + column // HEADS
        query_scale = _split_queries(of_latent, query_latent, row, first_column, NEW * HEADS)
        of_rope.store(query_part(query_rope, row, first_column, 0, 64, 64, NEW * HEADS, COLUMNS))
        fence_async_shared()
        gl.thread_barrier()
        query_scale = gl.convert_layout(query_scale, gl.SliceLayout(0, layout)) * scale
        largest = gl.full([COLUMNS], LOWEST, gl.float32, gl.SliceLayout(0, layout))
        total = gl.zeros([64, COLUMNS], gl.float32, layout)
        context_0 = gl.zeros([128, COLUMNS], gl.float32, layout)
        context_1 = gl.zeros([128, COLUMNS], gl.float32, layout)
        context_2 = gl.zeros([128, COLUMNS], gl.float32, layout)
        context_3 = gl.zeros([128, COLUMNS], gl.float32, layout)
        for number in range(begin, end):
            mbarrier.wait(ready.index(stage), phase)
            products = _multiply(latents, rope_keys, of_latent, of_rope, stage, layout)
            of_tiles = _scales(tile_scales.index(stage), number * 64 + place < length + NEW, layout)
            products = warpgroup_mma_wait(0, products)
            scores = _sum_products(products, of_tiles, query_scale, scale, layout)
            larger, shrunk, share = weigh(scores, number * 64 + place, last_seen, largest, LOWEST)
            largest = larger
            shrunk = shrunk[None, :]
            total = total * shrunk + share
            n_held = length + NEW - number * 64
            if n_held < 64:
                for part in gl.static_range(4):
                    clear(latents.index(4 * stage + part), n_held)
            # Shares are 1 at most, and latents come from a norm: scales are far from FP16's limits.
            for part in gl.static_range(4):
                shares.index(part).store((share * of_tiles[part][:, None]).to(gl.float16))
            fence_async_shared()
            gl.thread_barrier()
            value = _values(latents.index(4 * stage), layout)
            context_0 = warpgroup_mma(value, shares.index(0), context_0 * shrunk, is_async=True)
            value = _values(latents.index(4 * stage + 1), layout)
            context_1 = warpgroup_mma(value, shares.index(1), context_1 * shrunk, is_async=True)
            context_0 = warpgroup_mma_wait(1, [context_0])
            value = _values(latents.index(4 * stage + 2), layout)
            context_2 = warpgroup_mma(value, shares.index(2), context_2 * shrunk, is_async=True)
            context_1 = warpgroup_mma_wait(1, [context_1])
            value = _values(latents.index(4 * stage + 3), layout)
            context_3 = warpgroup_mma(value, shares.index(3), context_3 * shrunk, is_async=True)
            context_2 = warpgroup_mma_wait(1, [context_2])
            gl.thread_barrier()
            mbarrier.arrive(empty.index(stage), count=1)
            context_3 = warpgroup_mma_wait(0, [context_3])
            stage += 1
            if stage == STAGES:
                stage = 0
                phase ^= 1
        contexts = (context_0, context_1, context_2, context_3)
        store(results, rows, row, column, dim, contexts, largest, gl.sum(total, 0), NEW * HEADS)
        tile = last


@gluon.jit
def _values(latents, layout: gl.constexpr):
    """Latents [64, 128] as FP16 [128, 64] in registers, where tensor cores take them; rows in the order of `store`.

    A thread reads four neighbouring numbers of a token at once, which become rows of different fragments.
    """
    by_four: gl.constexpr = gl.DistributedLinearLayout(
        [[0, 1], [0, 2], [1, 0], [8, 0], [16, 0], [32, 0]],
        [[2, 0], [4, 0], [0, 4], [0, 8], [0, 16]],
        [[0, 32], [0, 64]],
        [],
        [64, 128],
    )
    # Pairs of tokens come out where pairs of numbers went in: the axes of two change places with that of four numbers.
    pairs = gl.reshape(_pair_tokens(latents.load(by_four)), [32, 2, 4, 8, 2, 2])
    values = gl.reshape(gl.permute(pairs, (1, 2, 4, 3, 0, 5)), [128, 64])
    return gl.convert_layout(values, gl.DotOperandLayout(0, layout, 2), assert_trivial=True)


@gluon.jit
def _pair_tokens(latents):
    """Four numbers of one token and of the next, as FP16: the first of both, then the second of both, and so on."""
    return gl.inline_asm_elementwise(
        """
        {
        .reg .b32 low, high;
        .reg .b16 first, second, third, fourth;
        prmt.b32 low, $4, $5, 0x5140;
        prmt.b32 high, $4, $5, 0x7362;
        mov.b32 {first, second}, low;
        mov.b32 {third, fourth}, high;
        cvt.rn.f16x2.e4m3x2 $0, first;
        cvt.rn.f16x2.e4m3x2 $1, second;
        cvt.rn.f16x2.e4m3x2 $2, third;
        cvt.rn.f16x2.e4m3x2 $3, fourth;
        }
        """,
        "=r,=r,=r,=r,r,r",
        [latents],
        dtype=gl.float16,
        is_pure=True,
        pack=8,
    )


@gluon.jit
def _split_queries(of_latent, source, row, first_column, N_COLUMNS: gl.constexpr):
    """Store queries over their scales [COLUMNS], which are returned, as two numbers of FP8, one below the other."""
    query_0 = query_part(source, row, first_column, 0, 512, 128, N_COLUMNS, COLUMNS).to(gl.float32)
    query_1 = query_part(source, row, first_column, 128, 512, 128, N_COLUMNS, COLUMNS).to(gl.float32)
    query_2 = query_part(source, row, first_column, 256, 512, 128, N_COLUMNS, COLUMNS).to(gl.float32)
    query_3 = query_part(source, row, first_column, 384, 512, 128, N_COLUMNS, COLUMNS).to(gl.float32)
    queries = (query_0, query_1, query_2, query_3)
    largest = gl.maximum(gl.abs(query_0), gl.abs(query_1))
    largest = gl.maximum(largest, gl.maximum(gl.abs(query_2), gl.abs(query_3)))
    scale = gl.maximum(gl.max(largest, 1), SMALLEST) / E4M3_LARGEST
    for part in gl.static_range(4):
        scaled = queries[part] / scale[:, None]
        rounded = scaled.to(gl.float8e4nv)
        of_latent.index(part).slice(0, COLUMNS, 0).store(rounded)
        of_latent.index(part).slice(COLUMNS, COLUMNS, 0).store((scaled - rounded.to(gl.float32)).to(gl.float8e4nv))
    return scale


@gluon.jit
def _multiply(latents, rope_keys, of_latent, of_rope, stage, layout: gl.constexpr):
    """Products, under way, of a tile and queries: of four parts [64, 2 · COLUMNS], and of the keys [64, COLUMNS]."""
    wide: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 2 * COLUMNS, 32])
    nothing = gl.zeros([64, 2 * COLUMNS], gl.float32, wide)
    none = gl.zeros([64, COLUMNS], gl.float32, layout)
    queries = of_latent.index(0).permute((1, 0))
    product_0 = warpgroup_mma(latents.index(4 * stage), queries, nothing, use_acc=False, is_async=True)
    queries = of_latent.index(1).permute((1, 0))
    product_1 = warpgroup_mma(latents.index(4 * stage + 1), queries, nothing, use_acc=False, is_async=True)
    queries = of_latent.index(2).permute((1, 0))
    product_2 = warpgroup_mma(latents.index(4 * stage + 2), queries, nothing, use_acc=False, is_async=True)
    queries = of_latent.index(3).permute((1, 0))
    product_3 = warpgroup_mma(latents.index(4 * stage + 3), queries, nothing, use_acc=False, is_async=True)
    queries = of_rope.permute((1, 0))
    of_keys = warpgroup_mma(rope_keys.index(stage), queries, none, use_acc=False, is_async=True)
    return product_0, product_1, product_2, product_3, of_keys


@gluon.jit
def _sum_products(products, of_tiles, query_scale, scale, layout: gl.constexpr):
    """Scores [64, COLUMNS] of what `_multiply` yields."""
    scores = gl.zeros([64, COLUMNS], gl.float32, layout)
    for part in gl.static_range(4):
        both = gl.sum(gl.reshape(products[part], [64, 2, COLUMNS]), 1)
        scores += gl.convert_layout(both, layout) * of_tiles[part][:, None]
    return scores * query_scale[None, :] + products[4] * scale


@gluon.jit
def _scales(tile_scales, is_held, layout: gl.constexpr):
    """The scales of each of the four parts of 64 latents; zeros where none is held."""
    # A thread reads all four of a latent whose scores it holds.
    by_score: gl.constexpr = gl.DistributedLinearLayout(
        [[0, 1], [0, 2], [8, 0]], [[0, 0], [0, 0], [1, 0], [2, 0], [4, 0]], [[16, 0], [32, 0]], [], [64, 4]
    )
    even, odd = gl.split(gl.reshape(tile_scales.load(by_score), [64, 2, 2]))
    scale_0, scale_2 = gl.split(even)
    scale_1, scale_3 = gl.split(odd)
    return (
        _of_held(scale_0, is_held, layout),
        _of_held(scale_1, is_held, layout),
        _of_held(scale_2, is_held, layout),
        _of_held(scale_3, is_held, layout),
    )


@gluon.jit
def _of_held(scale, is_held, layout: gl.constexpr):
    return gl.where(is_held, gl.convert_layout(scale, gl.SliceLayout(1, layout)), 0.0)
