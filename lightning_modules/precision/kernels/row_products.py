"""A Gluon kernel that multiplies E4M3 rows by their expert's E4M3 weight, for products over features.

The tensor cores add up 128 products; their sum is scaled and joins an FP32 accumulator in ordinary registers, the
promotion of arXiv 2412.19437, section 3.3.2. One warp loads through the tensor memory accelerator; two groups of four
warps multiply the upper and the lower 64 rows of a tile, so that one scales while the other multiplies. A tile is 256
columns wide, for at 128 the second-level cache could not bring operands as fast as they are multiplied; each group
takes one half of it after the other.
"""

# Kernels are typed by what they are compiled for, and their compile-time constants are capitals.
# mypy: allow-untyped-defs
# ruff: noqa: N803

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)


@gluon.jit
def multiply_rows(
    rows,  # descriptor of [stored rows, inner] in blocks of 64×128
    weight,  # descriptor of [E · n_columns, inner] in blocks of 128×128
    output,  # descriptor of [R, n_columns] in blocks of 64×128
    row_scales,  # [inner tiles, stored rows], row-major
    weight_scales,  # [E, column blocks, inner blocks], row-major
    experts,  # [n_tiles] int32, whose rows a tile holds, -1: nobody's; None: all are the first one's
    n_tiles,
    n_columns,
    inner,
    GROUP: gl.constexpr,
    STAGES: gl.constexpr,
    num_warps: gl.constexpr,
):
    """Every expert's rows, in tiles of 1×128, by the transpose of its weight, in blocks of 128×128.

    As many programs as there are multiprocessors take one tile of 128×256 of the output after the other. STAGES pairs
    of operands are on their way at a time.
    """
    left = gl.allocate_shared_memory(rows.dtype, [2 * STAGES, 64, 128], rows.layout)
    right = gl.allocate_shared_memory(weight.dtype, [2 * STAGES, 128, 128], weight.layout)
    staged = gl.allocate_shared_memory(output.dtype, [2, 64, 128], output.layout)
    empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    ready = gl.allocate_shared_memory(gl.int64, [2 * STAGES, 1], mbarrier.MBarrierLayout())
    for stage in gl.static_range(STAGES):
        mbarrier.init(empty.index(stage), count=2)
        mbarrier.init(ready.index(2 * stage), count=1)
        mbarrier.init(ready.index(2 * stage + 1), count=1)
    sizes = (n_tiles, n_columns, inner)
    shared = (left, right, empty, ready)
    scales = (row_scales, weight_scales)
    gl.warp_specialize(
        [
            (_multiply, (scales, experts, output, sizes, shared, staged, 0, GROUP, STAGES)),
            (_multiply, (scales, experts, output, sizes, shared, staged, 1, GROUP, STAGES)),
            (_load, (rows, weight, experts, sizes, shared, GROUP, STAGES)),
        ],
        [4, 1],
        [240, 24],
    )


@gluon.jit
def _load(rows, weight, experts, sizes, shared, GROUP: gl.constexpr, STAGES: gl.constexpr):
    """Bring the operands of one output tile after the other into shared memory, as soon as there is room."""
    n_tiles, n_columns, inner = sizes
    left, right, empty, ready = shared
    column_tiles = gl.cdiv(n_columns, 256)
    stage = 0
    phase = 1
    for unit in range(gl.program_id(0), n_tiles * column_tiles, gl.num_programs(0)):
        tile, column = _place(unit, n_tiles, column_tiles, GROUP)
        expert = _expert_of(experts, tile)
        if expert >= 0:
            first = tile * 128
            weight_row = expert * n_columns + column * 256
            for block in range(gl.cdiv(inner, 128)):
                mbarrier.wait(empty.index(stage), phase)
                place = block * 128
                barrier = ready.index(2 * stage)
                mbarrier.expect(barrier, 2 * rows.block_type.nbytes + weight.block_type.nbytes)
                tma.async_copy_global_to_shared(rows, [first, place], barrier, left.index(2 * stage))
                tma.async_copy_global_to_shared(rows, [first + 64, place], barrier, left.index(2 * stage + 1))
                tma.async_copy_global_to_shared(weight, [weight_row, place], barrier, right.index(2 * stage))
                barrier = ready.index(2 * stage + 1)
                mbarrier.expect(barrier, weight.block_type.nbytes)
                tma.async_copy_global_to_shared(weight, [weight_row + 128, place], barrier, right.index(2 * stage + 1))
                stage += 1
                if stage == STAGES:
                    stage = 0
                    phase ^= 1


@gluon.jit
def _multiply(
    scales,
    experts,
    output,
    sizes,
    shared,
    staged,
    HALF: gl.constexpr,
    GROUP: gl.constexpr,
    STAGES: gl.constexpr,
):
    """Multiply, scale and add up the upper (HALF 0) or lower 64 rows of one output tile after the other."""
    row_scales, weight_scales = scales
    n_tiles, n_columns, inner = sizes
    left, right, empty, ready = shared
    layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 128, 32])
    column_tiles = gl.cdiv(n_columns, 256)
    column_blocks = gl.cdiv(n_columns, 128)
    inner_blocks = gl.cdiv(inner, 128)
    mine = staged.index(HALF)
    stage = 0
    phase = 0
    for unit in range(gl.program_id(0), n_tiles * column_tiles, gl.num_programs(0)):
        tile, column = _place(unit, n_tiles, column_tiles, GROUP)
        expert = _expert_of(experts, tile)
        if expert >= 0:
            first = tile * 128 + 64 * HALF
            of_rows = row_scales + first + gl.arange(0, 64, gl.SliceLayout(1, layout))
            of_upper = weight_scales + (expert * column_blocks + 2 * column) * inner_blocks
            of_lower = of_upper + gl.where(2 * column + 1 < column_blocks, inner_blocks, 0)
            upper = gl.zeros([64, 128], gl.float32, layout)
            lower = gl.zeros([64, 128], gl.float32, layout)
            nothing = gl.zeros([64, 128], gl.float32, layout)
            row_scale = gl.load(of_rows)
            upper_scale = gl.load(of_upper)
            lower_scale = gl.load(of_lower)
            for block in range(inner_blocks):
                operand = left.index(2 * stage + HALF)
                mbarrier.wait(ready.index(2 * stage), phase)
                transposed = right.index(2 * stage).permute((1, 0))
                product = warpgroup_mma(operand, transposed, nothing, use_acc=False, is_async=True)
                scale = row_scale * upper_scale
                product = warpgroup_mma_wait(0, [product])
                upper += product * scale[:, None]
                # Waiting for the sum, too, has the compiler reuse the product's registers: there are none to spare.
                upper = warpgroup_mma_wait(0, [upper])
                mbarrier.wait(ready.index(2 * stage + 1), phase)
                transposed = right.index(2 * stage + 1).permute((1, 0))
                product = warpgroup_mma(operand, transposed, nothing, use_acc=False, is_async=True)
                scale = row_scale * lower_scale
                # The scales of the following block arrive while the tensor cores work on this one.
                following = gl.minimum(block + 1, inner_blocks - 1)
                row_scale = gl.load(of_rows + following * (n_tiles * 128))
                upper_scale = gl.load(of_upper + following)
                lower_scale = gl.load(of_lower + following)
                product = warpgroup_mma_wait(0, [product])
                mbarrier.arrive(empty.index(stage), count=1)
                lower += product * scale[:, None]
                lower = warpgroup_mma_wait(0, [lower])
                stage += 1
                if stage == STAGES:
                    stage = 0
                    phase ^= 1
            _store(output, upper, first, column * 256, mine)
            _store(output, lower, first, column * 256 + 128, mine)
    tma.store_wait(0)


@gluon.jit
def _store(output, values, row, column, staged):
    """Send 64×128 values to their place, through shared memory, once what went through it before has left."""
    tma.store_wait(0)
    staged.store(values.to(output.dtype))
    fence_async_shared()
    tma.async_copy_shared_to_global(output, [row, column], staged)


@gluon.jit
def _expert_of(experts, tile):
    return tile * 0 if experts is None else gl.load(experts + tile)


@gluon.jit
def _place(unit, n_tiles, column_tiles, GROUP: gl.constexpr):
    """The tile of rows and of columns that come `unit`-th: GROUP tiles of rows, then the next tile of columns.

    Programs that run at the same time so share rows and weights.
    """
    group = unit // (GROUP * column_tiles)
    in_group = gl.minimum(n_tiles - group * GROUP, GROUP)
    place = unit % (GROUP * column_tiles)
    return group * GROUP + place % in_group, place // in_group
