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
    row_scales,  # [inner tiles, stored rows], row-major; [1, stored rows] of whole rows
    weight_scales,  # [E, column blocks, inner blocks], row-major
    experts,  # [n_tiles] int32, whose rows a tile holds, -1: nobody's; None: all are the first one's
    n_tiles,
    n_columns,
    inner,
    GROUP: gl.constexpr,
    STAGES: gl.constexpr,
    WHOLE_ROWS: gl.constexpr,
    num_warps: gl.constexpr,
):
    """Every expert's rows, in tiles of 1×128 or as a whole, by the transpose of its weight, in blocks of 128×128.

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
            (_multiply, (scales, experts, output, sizes, shared, staged, 0, GROUP, STAGES, WHOLE_ROWS)),
            (_multiply, (scales, experts, output, sizes, shared, staged, 1, GROUP, STAGES, WHOLE_ROWS)),
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
    WHOLE_ROWS: gl.constexpr,
):
    """Multiply, scale and add up the upper (HALF 0) or lower 64 rows of one output tile after the other."""
    row_scales, weight_scales = scales
    n_tiles, n_columns, inner = sizes
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
            of_upper = weight_scales + (expert * column_blocks + 2 * column) * inner_blocks
            of_lower = of_upper + gl.where(2 * column + 1 < column_blocks, inner_blocks, 0)
            of_weight = (of_upper, of_lower)
            if WHOLE_ROWS:
                upper, lower, stage, phase = _sum_up(
                    row_scales + first, of_weight, inner_blocks, shared, stage, phase, HALF, STAGES
                )
            else:
                upper, lower, stage, phase = _sum_up_by_blocks(
                    row_scales + first, of_weight, inner_blocks, n_tiles * 128, shared, stage, phase, HALF, STAGES
                )
            _store(output, upper, first, column * 256, mine)
            _store(output, lower, first, column * 256 + 128, mine)
    tma.store_wait(0)


@gluon.jit
def _sum_up_by_blocks(
    row_scales, of_weight, inner_blocks, stored_rows, shared, stage, phase, HALF: gl.constexpr, STAGES: gl.constexpr
):
    """Both halves of 64 rows' columns, whose scales change after each block, and the stage and phase to go on with."""
    left, right, empty, ready = shared
    of_upper, of_lower = of_weight
    layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 128, 32])
    of_rows = row_scales + gl.arange(0, 64, gl.SliceLayout(1, layout))
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
        row_scale = gl.load(of_rows + following * stored_rows)
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
    return upper, lower, stage, phase


@gluon.jit
def _sum_up(row_scales, of_weight, inner_blocks, shared, stage, phase, HALF: gl.constexpr, STAGES: gl.constexpr):
    """As `_sum_up_by_blocks`, of rows with one scale: the tensor cores add up while the weight's stays, too."""
    left, right, empty, ready = shared
    of_upper, of_lower = of_weight
    layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 256, 32])
    both = right._reinterpret(right.dtype, [STAGES, 256, 128], right.layout)
    is_upper = gl.arange(0, 256, gl.SliceLayout(0, layout)) < 128
    total = gl.zeros([64, 256], gl.float32, layout)
    upper_scale = gl.load(of_upper)
    lower_scale = gl.load(of_lower)
    for block in range(inner_blocks):
        mbarrier.wait(ready.index(2 * stage), phase)
        mbarrier.wait(ready.index(2 * stage + 1), phase)
        operands = left.index(2 * stage + HALF), both.index(stage).permute((1, 0))
        total = warpgroup_mma(operands[0], operands[1], total, is_async=True)
        following = gl.minimum(block + 1, inner_blocks - 1)
        next_upper = gl.load(of_upper + following)
        next_lower = gl.load(of_lower + following)
        total = warpgroup_mma_wait(0, [total])
        mbarrier.arrive(empty.index(stage), count=1)
        if (next_upper != upper_scale) | (next_lower != lower_scale):
            total *= gl.where(is_upper, upper_scale / next_upper, lower_scale / next_lower)[None, :]
        upper_scale = next_upper
        lower_scale = next_lower
        stage += 1
        if stage == STAGES:
            stage = 0
            phase ^= 1
    row_scale = gl.load(row_scales + gl.arange(0, 64, gl.SliceLayout(1, layout)))
    total *= row_scale[:, None] * gl.where(is_upper, upper_scale, lower_scale)[None, :]
    upper, lower = split_columns(total)
    return upper, lower, stage, phase


@gluon.jit
def split_columns(total):
    """The left and the right half of 64×256 numbers."""
    layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 128, 32])
    left, right = gl.split(gl.permute(gl.reshape(total, [64, 2, 128]), (0, 2, 1)))
    return gl.convert_layout(left, layout), gl.convert_layout(right, layout)


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
