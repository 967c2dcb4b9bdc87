"""`latent_attention._attend` for Hopper: its tensor cores and copy engine, a rank of 512 and 64 rotary numbers.

One warp loads tiles of 64 tokens; four warps multiply and weigh them. Latents in FP8 are multiplied by queries as FP8,
which are split into two numbers of FP8 each and so lose no more than BF16 would; as values, four more warps turn them
into BF16, which is exact. The scales of their tiles stay outside of the products.
"""

# Kernels are typed by what they are compiled for, and their compile-time constants are capitals.
# mypy: allow-untyped-defs
# ruff: noqa: N803, N806

import torch
import triton
from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

RANK, ROPE = 512, 64
# New tokens times heads that a program attends for, at most: registers hold no more of their contexts.
MOST_COLUMNS = 32
# Registers of a thread when a program over FP8 begins; its groups then share them out among themselves.
REGISTERS = 168
# As in `latent_attention`.
LOWEST = -1e30
E4M3_LARGEST = gl.constexpr(448.0)


def fits(query_latent: Tensor, latent: Tensor, rope_key: Tensor) -> bool:
    """Whether these queries [B, T, H, R] and the cache of a layer [B, S, ·] are such as `launch` knows."""
    is_hopper = latent.is_cuda and torch.cuda.get_device_capability(latent.device) == (9, 0)
    of_shape = (latent.shape[-1], rope_key.shape[-1]) == (RANK, ROPE) and query_latent.dtype == rope_key.dtype
    return is_hopper and of_shape and rope_key.dtype == torch.bfloat16


def launch(
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
    """Fill `pieces` and `weights` (see `_attend`)."""
    n_rows, n_new, n_heads, _ = query_latent.shape
    is_fp8 = latent_scale is not None
    _attend[grid](
        query_latent,
        query_rope,
        _descriptor(latent, 128),
        _descriptor(rope_key, ROPE),
        latent_scale,
        lengths,
        pieces,
        weights,
        scale,
        n_rows,
        latent.stride(0) // latent.stride(1),
        rope_key.stride(0) // rope_key.stride(1),
        *((0, 0) if latent_scale is None else latent_scale.stride()[:2]),
        NEW=n_new,
        HEADS=n_heads,
        ROWS=triton.next_power_of_2(n_rows),
        COLUMNS=columns,
        LOWEST=LOWEST,
        STAGES=3 if is_fp8 and columns == 16 else 2,
        num_warps=4,
        **({"maxnreg": REGISTERS} if is_fp8 else {}),
    )


def _descriptor(cached: Tensor, width: int) -> TensorDescriptor:
    """Of a cache [B, S, N], its rows one after the other, for loads of 64 tokens by `width` numbers."""
    (n_rows, n_tokens, n_numbers), (row, token, _) = cached.shape, cached.stride()
    element = gl.float8e4nv if cached.dtype == torch.float8_e4m3fn else gl.bfloat16
    layout = gl.NVMMASharedLayout.get_default_for([64, width], element)
    shape = [(n_rows - 1) * (row // token) + n_tokens, n_numbers]
    return TensorDescriptor(cached, shape, [token, 1], [64, width], layout)


@gluon.jit
def _attend(
    query_latent,  # [B, T, H, 512]
    query_rope,  # [B, T, H, 64]
    latent,  # descriptor of [tokens, 512] in blocks of 64×128
    rope_key,  # descriptor of [tokens, 64] in blocks of 64×64
    latent_scale,  # FP32 [B, S, 4], or None
    lengths,  # [B]
    pieces,  # as in `latent_attention._attend`
    weights,
    scale,  # of scores whose exponentials are powers of two
    n_rows,
    latent_row,  # tokens by which rows lie apart
    rope_row,
    scale_row,  # strides
    scale_token,
    NEW: gl.constexpr,
    HEADS: gl.constexpr,
    ROWS: gl.constexpr,
    COLUMNS: gl.constexpr,
    LOWEST: gl.constexpr,
    STAGES: gl.constexpr,
    num_warps: gl.constexpr,
):
    """Attend to a program's share of all tiles, for COLUMNS of the new tokens' heads."""
    latents = gl.allocate_shared_memory(latent.dtype, [4 * STAGES, 64, 128], latent.layout)
    rope_keys = gl.allocate_shared_memory(rope_key.dtype, [STAGES, 64, 64], rope_key.layout)
    empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    ready = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    N_READERS: gl.constexpr = 1 if latent_scale is None else 2
    for stage in gl.static_range(STAGES):
        mbarrier.init(empty.index(stage), count=N_READERS)
        mbarrier.init(ready.index(stage), count=1)
    rows = (lengths, n_rows)
    shape: gl.constexpr = (NEW, HEADS, ROWS, COLUMNS, LOWEST, STAGES)
    queries = (query_latent, query_rope)
    results = (pieces, weights)
    loads = (latent, rope_key, latent_row, rope_row, latents, rope_keys, empty, ready)
    if latent_scale is None:
        gl.warp_specialize(
            [
                (_attend_bf16, (queries, rows, results, scale, latents, rope_keys, empty, ready, shape)),
                (_load, (loads, rows, NEW, ROWS, STAGES)),
            ],
            [1],
            [40],
        )
    else:
        values = gl.allocate_shared_memory(gl.bfloat16, [4, 64, 128], rope_key.layout)
        converted = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
        consumed = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
        mbarrier.init(converted, count=1)
        mbarrier.init(consumed, count=1)
        scales = (latent_scale, scale_row, scale_token)
        shared = (latents, rope_keys, values, empty, ready, converted, consumed)
        gl.warp_specialize(
            [
                (_attend_fp8, (queries, rows, results, scale, scales, shared, shape)),
                (_convert, (shared, rows, NEW, ROWS, STAGES)),
                (_load, (loads, rows, NEW, ROWS, STAGES)),
            ],
            [4, 1],
            [128, 40],
        )


@gluon.jit
def _add(x, y):
    return x + y


@gluon.jit
def _share_tiles(rows, NEW: gl.constexpr, ROWS: gl.constexpr, WARPS: gl.constexpr):
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
def _piece(ends, tile, stop):
    """The row that `tile` belongs to, the row's first tile, and the tile after the last that is to be done of it."""
    row = gl.sum((ends <= tile).to(gl.int32), 0)
    first = gl.max(gl.where(ends <= tile, ends, 0), 0)
    return row, first, gl.minimum(gl.min(gl.where(ends > tile, ends, stop), 0), stop)


@gluon.jit
def _load(loads, rows, NEW: gl.constexpr, ROWS: gl.constexpr, STAGES: gl.constexpr):
    """Bring one tile after the other into shared memory, as soon as there is room."""
    latent, rope_key, latent_row, rope_row, latents, rope_keys, empty, ready = loads
    ends, tile, stop = _share_tiles(rows, NEW, ROWS, 1)
    stage = 0
    phase = 1
    while tile < stop:
        row, first, last = _piece(ends, tile, stop)
        for number in range(tile - first, last - first):
            token = row * latent_row + number * 64
            mbarrier.wait(empty.index(stage), phase)
            barrier = ready.index(stage)
            mbarrier.expect(barrier, 4 * latent.block_type.nbytes + rope_key.block_type.nbytes)
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
def _convert(shared, rows, NEW: gl.constexpr, ROWS: gl.constexpr, STAGES: gl.constexpr):
    """Turn one tile of FP8 after the other into BF16, each once the one before has been consumed."""
    latents, _, values, empty, ready, converted, consumed = shared
    layout: gl.constexpr = gl.BlockedLayout([1, 8], [2, 16], [4, 1], [1, 0])
    _, tile, stop = _share_tiles(rows, NEW, ROWS, 4)
    stage = 0
    phase = 0
    turn = 1
    for _tile in range(tile, stop):
        mbarrier.wait(ready.index(stage), phase)
        mbarrier.wait(consumed, turn)
        for part in gl.static_range(4):
            values.index(part).store(_to_bf16(latents.index(4 * stage + part).load(layout)))
        fence_async_shared()
        gl.thread_barrier()
        mbarrier.arrive(converted, count=1)
        mbarrier.arrive(empty.index(stage), count=1)
        turn ^= 1
        stage += 1
        if stage == STAGES:
            stage = 0
            phase ^= 1


@gluon.jit
def _to_bf16(values):
    """E4M3 numbers as BF16: their bits in its places, times 2 to the difference of the exponents' biases."""
    return gl.inline_asm_elementwise(
        """
        {
        .reg .b32 low, high, sign, rest;
        prmt.b32 low, $2, 0, 0x1404;
        prmt.b32 high, $2, 0, 0x3424;
        and.b32 sign, low, 0x80008000;
        shr.u32 rest, low, 4;
        and.b32 rest, rest, 0x07F007F0;
        or.b32 low, rest, sign;
        and.b32 sign, high, 0x80008000;
        shr.u32 rest, high, 4;
        and.b32 rest, rest, 0x07F007F0;
        or.b32 high, rest, sign;
        mov.b32 rest, 0x7B807B80;
        mul.rn.bf16x2 $0, low, rest;
        mul.rn.bf16x2 $1, high, rest;
        }
        """,
        "=r,=r,r",
        [values],
        dtype=gl.bfloat16,
        is_pure=True,
        pack=4,
    )


@gluon.jit
def _attend_bf16(queries, rows, results, scale, latents, rope_keys, empty, ready, shape: gl.constexpr):
    """Attend to latents of BF16."""
    NEW: gl.constexpr = shape[0]
    HEADS: gl.constexpr = shape[1]
    ROWS: gl.constexpr = shape[2]
    COLUMNS: gl.constexpr = shape[3]
    LOWEST: gl.constexpr = shape[4]
    STAGES: gl.constexpr = shape[5]
    query_latent, query_rope = queries
    layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, COLUMNS, 16])
    wide: gl.constexpr = gl.NVMMASharedLayout(128, 16, 2)
    narrow: gl.constexpr = gl.NVMMASharedLayout.get_default_for([64, COLUMNS], gl.bfloat16)
    of_latent = gl.allocate_shared_memory(gl.bfloat16, [4, COLUMNS, 128], wide)
    of_rope = gl.allocate_shared_memory(gl.bfloat16, [COLUMNS, 64], wide)
    shares = gl.allocate_shared_memory(gl.bfloat16, [64, COLUMNS], narrow)
    place = gl.arange(0, 64, gl.SliceLayout(1, layout))
    column = gl.program_id(1) * COLUMNS + gl.arange(0, COLUMNS, gl.SliceLayout(0, layout))
    ends, tile, stop = _share_tiles(rows, NEW, ROWS, 4)
    stage = 0
    phase = 0
    while tile < stop:
        row, first, last = _piece(ends, tile, stop)
        length = gl.load(rows[0] + row).to(gl.int32)
        last_seen = length + column // HEADS
        for part in gl.static_range(4):
            of_latent.index(part).store(_query(query_latent, row, 128 * part, 512, 128, NEW * HEADS, COLUMNS))
        of_rope.store(_query(query_rope, row, 0, 64, 64, NEW * HEADS, COLUMNS))
        fence_async_shared()
        gl.thread_barrier()
        nothing = gl.zeros([64, COLUMNS], gl.float32, layout)
        largest = gl.full([COLUMNS], LOWEST, gl.float32, gl.SliceLayout(0, layout))
        total = gl.zeros([COLUMNS], gl.float32, gl.SliceLayout(0, layout))
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
            larger, shrunk, share = _weigh(scores * scale, number * 64 + place, last_seen, largest, LOWEST)
            total = total * shrunk + gl.sum(share, 0)
            largest = larger
            n_held = length + NEW - number * 64
            if n_held < 64:
                for part in gl.static_range(4):
                    _clear(latents.index(4 * stage + part), n_held)
            shares.store(share.to(gl.bfloat16))
            fence_async_shared()
            shrunk = shrunk[None, :]
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
        _store(results, rows, row, column, contexts, largest, total, NEW * HEADS, layout)
        tile = last


@gluon.jit
def _attend_fp8(queries, rows, results, scale, scales, shared, shape: gl.constexpr):
    """Attend to latents of FP8, which `_convert` also makes values of."""
    NEW: gl.constexpr = shape[0]
    HEADS: gl.constexpr = shape[1]
    ROWS: gl.constexpr = shape[2]
    COLUMNS: gl.constexpr = shape[3]
    LOWEST: gl.constexpr = shape[4]
    STAGES: gl.constexpr = shape[5]
    query_latent, query_rope = queries
    latents, rope_keys, values, empty, ready, converted, consumed = shared
    layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, COLUMNS, 16])
    of_fp8: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, COLUMNS, 32])
    by_token: gl.constexpr = gl.SliceLayout(1, layout)
    by_column: gl.constexpr = gl.SliceLayout(0, layout)
    narrow: gl.constexpr = gl.NVMMASharedLayout.get_default_for([64, COLUMNS], gl.bfloat16)
    high = gl.allocate_shared_memory(gl.float8e4nv, [4, COLUMNS, 128], gl.NVMMASharedLayout(128, 8, 2))
    low = gl.allocate_shared_memory(gl.float8e4nv, [4, COLUMNS, 128], gl.NVMMASharedLayout(128, 8, 2))
    of_rope = gl.allocate_shared_memory(gl.bfloat16, [COLUMNS, 64], gl.NVMMASharedLayout(128, 16, 2))
    shares = gl.allocate_shared_memory(gl.bfloat16, [4, 64, COLUMNS], narrow)
    place = gl.arange(0, 64, by_token)
    column = gl.program_id(1) * COLUMNS + gl.arange(0, COLUMNS, by_column)
    ends, tile, stop = _share_tiles(rows, NEW, ROWS, 4)
    stage = 0
    phase = 0
    turn = 0
    while tile < stop:
        row, first, last = _piece(ends, tile, stop)
        length = gl.load(rows[0] + row).to(gl.int32)
        last_seen = length + column // HEADS
        query_0 = _query(query_latent, row, 0, 512, 128, NEW * HEADS, COLUMNS).to(gl.float32)
        query_1 = _query(query_latent, row, 128, 512, 128, NEW * HEADS, COLUMNS).to(gl.float32)
        query_2 = _query(query_latent, row, 256, 512, 128, NEW * HEADS, COLUMNS).to(gl.float32)
        query_3 = _query(query_latent, row, 384, 512, 128, NEW * HEADS, COLUMNS).to(gl.float32)
        largest_query = gl.maximum(gl.max(gl.abs(query_0), 1), gl.max(gl.abs(query_1), 1))
        largest_query = gl.maximum(largest_query, gl.maximum(gl.max(gl.abs(query_2), 1), gl.max(gl.abs(query_3), 1)))
        query_scale = gl.maximum(largest_query, 1e-30) / E4M3_LARGEST
        _split(high.index(0), low.index(0), query_0, query_scale)
        _split(high.index(1), low.index(1), query_1, query_scale)
        _split(high.index(2), low.index(2), query_2, query_scale)
        _split(high.index(3), low.index(3), query_3, query_scale)
        of_rope.store(_query(query_rope, row, 0, 64, 64, NEW * HEADS, COLUMNS))
        fence_async_shared()
        gl.thread_barrier()
        of_query = gl.convert_layout(query_scale, by_column)[None, :]
        nothing = gl.zeros([64, COLUMNS], gl.float32, layout)
        none = gl.zeros([64, COLUMNS], gl.float32, of_fp8)
        largest = gl.full([COLUMNS], LOWEST, gl.float32, by_column)
        total = gl.zeros([COLUMNS], gl.float32, by_column)
        context_0 = gl.zeros([128, COLUMNS], gl.float32, layout)
        context_1 = gl.zeros([128, COLUMNS], gl.float32, layout)
        context_2 = gl.zeros([128, COLUMNS], gl.float32, layout)
        context_3 = gl.zeros([128, COLUMNS], gl.float32, layout)
        held = length + NEW
        scale_0, scale_1, scale_2, scale_3 = _scales(scales, row, (tile - first) * 64 + place, held)
        for number in range(tile - first, last - first):
            mbarrier.wait(ready.index(stage), phase)
            product_0 = _multiply_fp8(latents.index(4 * stage), high.index(0), low.index(0), none)
            product_1 = _multiply_fp8(latents.index(4 * stage + 1), high.index(1), low.index(1), none)
            product_2 = _multiply_fp8(latents.index(4 * stage + 2), high.index(2), low.index(2), none)
            product_3 = _multiply_fp8(latents.index(4 * stage + 3), high.index(3), low.index(3), none)
            transposed = of_rope.permute((1, 0))
            scores = warpgroup_mma(rope_keys.index(stage), transposed, nothing, use_acc=False, is_async=True)
            # The scales of the following tile arrive while the tensor cores work on this one.
            following = _scales(scales, row, (number + 1) * 64 + place, held)
            product_0, product_1, product_2, product_3, scores = warpgroup_mma_wait(
                0, [product_0, product_1, product_2, product_3, scores]
            )
            gl.thread_barrier()
            mbarrier.arrive(empty.index(stage), count=1)
            of_latent = gl.convert_layout(product_0, layout) * scale_0[:, None]
            of_latent += gl.convert_layout(product_1, layout) * scale_1[:, None]
            of_latent += gl.convert_layout(product_2, layout) * scale_2[:, None]
            of_latent += gl.convert_layout(product_3, layout) * scale_3[:, None]
            scores = (of_latent * of_query + scores) * scale
            larger, shrunk, share = _weigh(scores, number * 64 + place, last_seen, largest, LOWEST)
            total = total * shrunk + gl.sum(share, 0)
            largest = larger
            shares.index(0).store((share * scale_0[:, None]).to(gl.bfloat16))
            shares.index(1).store((share * scale_1[:, None]).to(gl.bfloat16))
            shares.index(2).store((share * scale_2[:, None]).to(gl.bfloat16))
            shares.index(3).store((share * scale_3[:, None]).to(gl.bfloat16))
            fence_async_shared()
            gl.thread_barrier()
            shrunk = shrunk[None, :]
            scale_0, scale_1, scale_2, scale_3 = following
            mbarrier.wait(converted, turn)
            of_part = values.index(0).permute((1, 0))
            context_0 = warpgroup_mma(of_part, shares.index(0), context_0 * shrunk, is_async=True)
            of_part = values.index(1).permute((1, 0))
            context_1 = warpgroup_mma(of_part, shares.index(1), context_1 * shrunk, is_async=True)
            of_part = values.index(2).permute((1, 0))
            context_2 = warpgroup_mma(of_part, shares.index(2), context_2 * shrunk, is_async=True)
            of_part = values.index(3).permute((1, 0))
            context_3 = warpgroup_mma(of_part, shares.index(3), context_3 * shrunk, is_async=True)
            context_0, context_1, context_2, context_3 = warpgroup_mma_wait(
                0, [context_0, context_1, context_2, context_3]
            )
            gl.thread_barrier()
            mbarrier.arrive(consumed, count=1)
            turn ^= 1
            stage += 1
            if stage == STAGES:
                stage = 0
                phase ^= 1
        contexts = (context_0, context_1, context_2, context_3)
        _store(results, rows, row, column, contexts, largest, total, NEW * HEADS, layout)
        tile = last


@gluon.jit
def _query(
    source,
    row,
    begin,
    WIDTH: gl.constexpr,
    PART: gl.constexpr,
    N_COLUMNS: gl.constexpr,
    COLUMNS: gl.constexpr,
):
    """PART of the WIDTH numbers of COLUMNS queries of a row, from `begin` on; zeros where there are no more queries."""
    layout: gl.constexpr = gl.BlockedLayout([1, 8], [256 // PART, PART // 8], [4, 1], [1, 0])
    column = gl.program_id(1) * COLUMNS + gl.arange(0, COLUMNS, gl.SliceLayout(1, layout))
    dim = begin + gl.arange(0, PART, gl.SliceLayout(0, layout))
    at = source + (row.to(gl.int64) * N_COLUMNS + column)[:, None] * WIDTH + dim[None, :]
    return gl.load(at, (column < N_COLUMNS)[:, None], other=0.0)


@gluon.jit
def _clear(latents, n_held):
    """Put zeros in place of what follows the first `n_held` of 64 latents: there might be NaN, of which 0 makes NaN."""
    layout: gl.constexpr = gl.BlockedLayout([1, 8], [2, 16], [4, 1], [1, 0])
    is_held = gl.arange(0, 64, gl.SliceLayout(1, layout)) < n_held
    latents.store(gl.where(is_held[:, None], latents.load(layout), 0.0))


@gluon.jit
def _split(high, low, query, scale):
    """Store `query` over `scale` as the sum of two numbers of FP8."""
    scaled = query / scale[:, None]
    rounded = scaled.to(gl.float8e4nv)
    high.store(rounded)
    low.store((scaled - rounded.to(gl.float32)).to(gl.float8e4nv))


@gluon.jit
def _multiply_fp8(latents, high, low, nothing):
    """Products [64, COLUMNS], under way, of latents and queries of which `high` and `low` are the sum."""
    product = warpgroup_mma(latents, high.permute((1, 0)), nothing, use_acc=False, is_async=True)
    return warpgroup_mma(latents, low.permute((1, 0)), product, is_async=True)


@gluon.jit
def _scales(scales, row, token, held):
    """The scales of the four parts of the latents of `token` [64], of which the row holds `held`; zeros beyond."""
    latent_scale, scale_row, scale_token = scales
    at = latent_scale + row.to(gl.int64) * scale_row + token * scale_token
    inside = token < held
    return (
        gl.load(at, inside, other=0.0),
        gl.load(at + 1, inside, other=0.0),
        gl.load(at + 2, inside, other=0.0),
        gl.load(at + 3, inside, other=0.0),
    )


@gluon.jit
def _weigh(scores, token, last_seen, largest, LOWEST: gl.constexpr):
    """The largest scores so far, the factor of what was summed before, and the exponentials of `scores`."""
    scores = gl.where(token[:, None] <= last_seen[None, :], scores, LOWEST)
    larger = gl.maximum(largest, gl.max(scores, 0))
    share = gl.where(scores > LOWEST, gl.exp2(scores - larger[None, :]), 0.0)
    return larger, gl.exp2(largest - larger), share


@gluon.jit
def _store(
    results,
    rows,
    row,
    column,
    contexts,
    largest,
    total,
    N_COLUMNS: gl.constexpr,
    layout: gl.constexpr,
):
    """Store what a piece of a row has come to."""
    pieces, weights = results
    is_column = column < N_COLUMNS
    at = (gl.program_id(0) + row).to(gl.int64) * N_COLUMNS + column
    gl.store(weights + at, largest, is_column)
    n_pieces = gl.num_programs(0) + rows[1] - 1
    gl.store(weights + n_pieces.to(gl.int64) * N_COLUMNS + at, total, is_column)
    dim = gl.arange(0, 128, gl.SliceLayout(1, layout))
    target = pieces + at[None, :] * 512 + dim[:, None]
    for part in gl.static_range(4):
        gl.store(target + 128 * part, contexts[part], is_column[None, :])
