"""What routed experts make of their tokens before their last projection, in one kernel: silu(gate) · up · weight.

Four warps gather tiles of rows from tokens, one loads weights, eight multiply; gate and up projections of a tile share
its rows, and neither rows nor projections ever lie in memory. Programs take tiles in turns, one a multiprocessor.

Suffixes as in `experts.py`.
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
    async_copy,
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

# Rows and columns of a tile, numbers of them that are multiplied at once, and how many of those are on their way.
TILE, DEPTH, N_STAGES = 128, 64, 4
ROWS = COLUMNS = gl.constexpr(TILE)
BLOCK = gl.constexpr(DEPTH)
STAGES = gl.constexpr(N_STAGES)
# Registers of a thread when a program begins; its warps then share them out.
REGISTERS = 128


def fits(tokens: Tensor, gate_up: Tensor) -> bool:
    """Whether `activate` knows the shape and type of `tokens` [N, D] and `gate_up` [E, 2I, D], and the device."""
    is_hopper = tokens.is_cuda and torch.cuda.get_device_capability(tokens.device) == (9, 0)
    is_bf16 = tokens.dtype == gate_up.dtype == torch.bfloat16
    return is_hopper and is_bf16 and gate_up.shape[1] % (2 * TILE) == 0 and gate_up.shape[2] % DEPTH == 0


def activate(tokens: Tensor, sources: Tensor, gate_up: Tensor, weights: Tensor, ends: Tensor) -> Tensor:
    """silu(gate) · up · weight [R, I] of every expert's rows; sums are FP32.

    Args:
        tokens: [N, D], contiguous.
        sources: int32 [R] which token each row is, in order of experts.
        gate_up: [E, 2I, D] every expert's gate above its up projection.
        weights: FP32 [R] of the rows.
        ends: int32 [E] where each expert's rows end.
    """
    n_rows, (n_experts, width), depth = len(sources), (gate_up.shape[0], gate_up.shape[1] // 2), tokens.shape[1]
    activations = tokens.new_empty(n_rows, width)
    n_programs = torch.cuda.get_device_properties(tokens.device).multi_processor_count
    _activate[(n_programs,)](
        tokens,
        sources,
        _descriptor(gate_up.flatten(0, 1)),
        weights,
        ends,
        activations,
        n_experts,
        WIDTH=width,
        DEPTH=depth,
        EXPERTS=triton.next_power_of_2(n_experts),
        num_warps=8,
        maxnreg=REGISTERS,
    )
    return activations


def _descriptor(matrix: Tensor) -> TensorDescriptor:
    layout = gl.NVMMASharedLayout(128, 16, 2)
    return TensorDescriptor(matrix, list(matrix.shape), list(matrix.stride()), [TILE, DEPTH], layout)


@gluon.jit
def _activate(
    tokens,  # [N, D]
    sources,  # int32 [R]
    gate_up,  # descriptor of [E · 2I, D]
    weights,  # FP32 [R]
    ends,  # int32 [E]
    activations,  # [R, I]
    n_experts,
    WIDTH: gl.constexpr,
    DEPTH: gl.constexpr,
    EXPERTS: gl.constexpr,
    num_warps: gl.constexpr,
):
    of_rows = gl.allocate_shared_memory(gl.bfloat16, [STAGES, ROWS, BLOCK], gate_up.layout)
    of_gate = gl.allocate_shared_memory(gl.bfloat16, [STAGES, COLUMNS, BLOCK], gate_up.layout)
    of_up = gl.allocate_shared_memory(gl.bfloat16, [STAGES, COLUMNS, BLOCK], gate_up.layout)
    empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    ready = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for stage in gl.static_range(STAGES):
        mbarrier.init(empty.index(stage), count=1)
        mbarrier.init(ready.index(stage), count=1 + 128)
    shared = (of_rows, of_gate, of_up, empty, ready)
    gl.warp_specialize(
        [
            (_multiply, (weights, activations, (ends, n_experts), shared, WIDTH, DEPTH, EXPERTS)),
            (_gather, (tokens, sources, (ends, n_experts), shared, WIDTH, DEPTH, EXPERTS)),
            (_load, (gate_up, (ends, n_experts), shared, WIDTH, DEPTH, EXPERTS)),
        ],
        [4, 1],
        [72, 40],
    )


@gluon.jit
def _add(x, y):
    return x + y


@gluon.jit
def _tiles(experts, EXPERTS: gl.constexpr, WARPS: gl.constexpr):
    """Where each expert's rows begin and end, and its tiles of rows end [EXPERTS]; and how many there are in all."""
    ends, n_experts = experts
    expert = gl.arange(0, EXPERTS, gl.BlockedLayout([1], [32], [WARPS], [0]))
    # Behind the last expert stand some without rows.
    end = gl.load(ends + gl.minimum(expert, n_experts - 1))
    begin = gl.load(ends + gl.minimum(expert, n_experts) - 1, mask=expert > 0, other=0)
    tile_ends = gl.associative_scan((end - begin + ROWS - 1) // ROWS, 0, _add)
    return expert, begin, end, tile_ends, gl.max(tile_ends, 0)


@gluon.jit
def _rows_of(tiles, tile):
    """The expert of a tile of rows, its first row, and where the expert's rows end."""
    expert, begin, end, tile_ends, _ = tiles
    chosen = gl.sum((tile_ends <= tile).to(gl.int32), 0)
    before = gl.max(gl.where(tile_ends <= tile, tile_ends, 0), 0)
    first = gl.sum(gl.where(expert == chosen, begin, 0), 0) + (tile - before) * ROWS
    return chosen, first, gl.sum(gl.where(expert == chosen, end, 0), 0)


@gluon.jit
def _gather(tokens, sources, experts, shared, WIDTH: gl.constexpr, DEPTH: gl.constexpr, EXPERTS: gl.constexpr):
    """Bring one block of rows after the other into shared memory, as soon as there is room."""
    of_rows, of_gate, of_up, empty, ready = shared
    layout: gl.constexpr = gl.BlockedLayout([1, 8], [4, 8], [4, 1], [1, 0])
    tiles = _tiles(experts, EXPERTS, 4)
    N_COLUMNS: gl.constexpr = WIDTH // COLUMNS
    stage = 0
    phase = 1
    for number in range(gl.program_id(0), tiles[4] * N_COLUMNS, gl.num_programs(0)):
        expert, first, end = _rows_of(tiles, number // N_COLUMNS)
        row = first + gl.arange(0, ROWS, gl.SliceLayout(1, layout))
        # Behind an expert's last row any token will do: nobody reads what becomes of it.
        token = gl.load(sources + gl.minimum(row, end - 1)).to(gl.int64)
        source = tokens + token[:, None] * DEPTH + gl.arange(0, BLOCK, gl.SliceLayout(0, layout))[None, :]
        for block in range(DEPTH // BLOCK):
            mbarrier.wait(empty.index(stage), phase)
            async_copy.async_copy_global_to_shared(of_rows.index(stage), source + block * BLOCK)
            async_copy.mbarrier_arrive(ready.index(stage), increment_count=False)
            stage += 1
            if stage == STAGES:
                stage = 0
                phase ^= 1


@gluon.jit
def _load(gate_up, experts, shared, WIDTH: gl.constexpr, DEPTH: gl.constexpr, EXPERTS: gl.constexpr):
    """Bring one block of weights after the other into shared memory, as soon as there is room."""
    of_rows, of_gate, of_up, empty, ready = shared
    tiles = _tiles(experts, EXPERTS, 1)
    N_COLUMNS: gl.constexpr = WIDTH // COLUMNS
    stage = 0
    phase = 1
    for number in range(gl.program_id(0), tiles[4] * N_COLUMNS, gl.num_programs(0)):
        expert, first, end = _rows_of(tiles, number // N_COLUMNS)
        column = expert * (2 * WIDTH) + number % N_COLUMNS * COLUMNS
        for block in range(DEPTH // BLOCK):
            mbarrier.wait(empty.index(stage), phase)
            barrier = ready.index(stage)
            mbarrier.expect(barrier, 2 * gate_up.block_type.nbytes)
            at = block * BLOCK
            tma.async_copy_global_to_shared(gate_up, [column, at], barrier, of_gate.index(stage))
            tma.async_copy_global_to_shared(gate_up, [column + WIDTH, at], barrier, of_up.index(stage))
            stage += 1
            if stage == STAGES:
                stage = 0
                phase ^= 1


@gluon.jit
def _multiply(weights, activations, experts, shared, WIDTH: gl.constexpr, DEPTH: gl.constexpr, EXPERTS: gl.constexpr):
    """Multiply one block after the other, and activate a tile once it is summed."""
    of_rows, of_gate, of_up, empty, ready = shared
    layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [8, 1], [16, COLUMNS, 16])
    tiles = _tiles(experts, EXPERTS, 8)
    N_COLUMNS: gl.constexpr = WIDTH // COLUMNS
    stage = 0
    phase = 0
    for number in range(gl.program_id(0), tiles[4] * N_COLUMNS, gl.num_programs(0)):
        gate = gl.zeros([ROWS, COLUMNS], gl.float32, layout)
        up = gl.zeros([ROWS, COLUMNS], gl.float32, layout)
        for block in range(DEPTH // BLOCK):
            mbarrier.wait(ready.index(stage), phase)
            fence_async_shared()
            gate = warpgroup_mma(of_rows.index(stage), of_gate.index(stage).permute((1, 0)), gate, is_async=True)
            up = warpgroup_mma(of_rows.index(stage), of_up.index(stage).permute((1, 0)), up, is_async=True)
            # Both products of the block before are done; these go on.
            gate, up = warpgroup_mma_wait(2, [gate, up])
            gl.thread_barrier()
            mbarrier.arrive(empty.index((stage + STAGES - 1) % STAGES), count=1, pred=block > 0)
            stage += 1
            if stage == STAGES:
                stage = 0
                phase ^= 1
        gate, up = warpgroup_mma_wait(0, [gate, up])
        gl.thread_barrier()
        mbarrier.arrive(empty.index((stage + STAGES - 1) % STAGES), count=1)
        _, first, end = _rows_of(tiles, number // N_COLUMNS)
        row = first + gl.arange(0, ROWS, gl.SliceLayout(1, layout))
        column = number % N_COLUMNS * COLUMNS + gl.arange(0, COLUMNS, gl.SliceLayout(0, layout))
        weight = gl.load(weights + row, mask=row < end, other=0.0)
        activated = gate / (1 + gl.exp(-gate)) * up * weight[:, None]
        at = activations + row.to(gl.int64)[:, None] * WIDTH + column[None, :]
        gl.store(at, activated.to(gl.bfloat16), mask=(row < end)[:, None])
