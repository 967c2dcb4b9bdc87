"""A Gluon kernel that multiplies E4M3 rows by their expert's E4M3 weight, for products over features.

The tensor cores add up 128 products; their sum is scaled and joins an FP32 accumulator in ordinary registers, the
promotion of arXiv 2412.19437, section 3.3.2. One warp loads through the tensor memory accelerator; two groups of four
warps multiply the upper and the lower 64 rows of a tile, so that one scales while the other multiplies.
"""

# Kernels are typed by what they are compiled for, and their compile-time constants are capitals.
# mypy: allow-untyped-defs
# ruff: noqa: N803

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import mbarrier, tma, warpgroup_mma, warpgroup_mma_wait


@gluon.jit
def multiply_rows(
    rows,  # descriptor of [R, inner] in blocks of 64×128
    weight,  # descriptor of [E · n_columns, inner] in blocks of 128×128
    row_scales,  # [inner tiles, R], row-major
    weight_scales,  # [E, column blocks, inner blocks], row-major
    plan,  # [n_tiles, 3] from `plan_tiles`
    output,  # [R, n_columns], row-major
    n_tiles,
    n_columns,
    inner,
    n_rows,
    GROUP: gl.constexpr,
    STAGES: gl.constexpr,
    num_warps: gl.constexpr,
):
    """Every expert's rows, in tiles of 1×128, by the transpose of its weight, in blocks of 128×128.

    As many programs as there are multiprocessors take one tile of 128×128 of the output after the other. STAGES pairs
    of operands are on their way at a time.
    """
    left = gl.allocate_shared_memory(rows.dtype, [2 * STAGES, 64, 128], rows.layout)
    right = gl.allocate_shared_memory(weight.dtype, [STAGES, 128, 128], weight.layout)
    empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    ready = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for stage in gl.static_range(STAGES):
        mbarrier.init(empty.index(stage), count=2)
        mbarrier.init(ready.index(stage), count=1)
    sizes = (n_tiles, n_columns, inner, n_rows)
    shared = (left, right, empty, ready)
    scales = (row_scales, weight_scales)
    gl.warp_specialize(
        [
            (_multiply, (scales, plan, output, sizes, shared, 0, GROUP, STAGES)),
            (_multiply, (scales, plan, output, sizes, shared, 1, GROUP, STAGES)),
            (_load, (rows, weight, plan, sizes, shared, GROUP, STAGES)),
        ],
        [4, 1],
        [240, 24],
    )


@gluon.jit
def _load(rows, weight, plan, sizes, shared, GROUP: gl.constexpr, STAGES: gl.constexpr):
    """Bring the operands of one output tile after the other into shared memory, as soon as there is room."""
    n_tiles, n_columns, inner, _ = sizes
    left, right, empty, ready = shared
    column_tiles = gl.cdiv(n_columns, 128)
    stage = 0
    phase = 1
    for unit in range(gl.program_id(0), n_tiles * column_tiles, gl.num_programs(0)):
        tile, column = _place(unit, n_tiles, column_tiles, GROUP)
        expert = gl.load(plan + 3 * tile)
        first = gl.load(plan + 3 * tile + 1)
        if expert >= 0:
            for block in range(gl.cdiv(inner, 128)):
                mbarrier.wait(empty.index(stage), phase)
                barrier = ready.index(stage)
                mbarrier.expect(barrier, 2 * rows.block_type.nbytes + weight.block_type.nbytes)
                place = block * 128
                tma.async_copy_global_to_shared(rows, [first, place], barrier, left.index(2 * stage))
                tma.async_copy_global_to_shared(rows, [first + 64, place], barrier, left.index(2 * stage + 1))
                weight_row = expert * n_columns + column * 128
                tma.async_copy_global_to_shared(weight, [weight_row, place], barrier, right.index(stage))
                stage += 1
                if stage == STAGES:
                    stage = 0
                    phase ^= 1


@gluon.jit
def _multiply(
    scales,
    plan,
    output,
    sizes,
    shared,
    HALF: gl.constexpr,
    GROUP: gl.constexpr,
    STAGES: gl.constexpr,
):
    """Multiply, scale and add up the upper (HALF 0) or lower 64 rows of one output tile after the other."""
    row_scales, weight_scales = scales
    n_tiles, n_columns, inner, n_rows = sizes
    left, right, empty, ready = shared
    layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 128, 32])
    stored: gl.constexpr = gl.BlockedLayout([1, 8], [2, 16], [4, 1], [1, 0])
    column_tiles = gl.cdiv(n_columns, 128)
    inner_blocks = gl.cdiv(inner, 128)
    stage = 0
    phase = 0
    for unit in range(gl.program_id(0), n_tiles * column_tiles, gl.num_programs(0)):
        tile, column = _place(unit, n_tiles, column_tiles, GROUP)
        expert = gl.load(plan + 3 * tile)
        first = gl.load(plan + 3 * tile + 1) + 64 * HALF
        end = gl.load(plan + 3 * tile + 2)
        if expert >= 0:
            places = first + gl.arange(0, 64, gl.SliceLayout(1, layout))
            block_scales = weight_scales + (expert * column_tiles + column) * inner_blocks
            total = gl.zeros([64, 128], gl.float32, layout)
            nothing = gl.zeros([64, 128], gl.float32, layout)
            row_scale = gl.load(row_scales + places, places < end, other=0.0)
            block_scale = gl.load(block_scales)
            for block in range(inner_blocks):
                scale = row_scale * block_scale
                mbarrier.wait(ready.index(stage), phase)
                transposed = right.index(stage).permute((1, 0))
                product = warpgroup_mma(left.index(2 * stage + HALF), transposed, nothing, use_acc=False, is_async=True)
                # The scales of the following block arrive while the tensor cores work on this one.
                following = gl.minimum(block + 1, inner_blocks - 1)
                row_scale = gl.load(row_scales + following.to(gl.int64) * n_rows + places, places < end, other=0.0)
                block_scale = gl.load(block_scales + following)
                product = warpgroup_mma_wait(0, [product])
                mbarrier.arrive(empty.index(stage), count=1)
                total += product * scale[:, None]
                stage += 1
                if stage == STAGES:
                    stage = 0
                    phase ^= 1
            values = gl.convert_layout(total.to(output.dtype.element_ty), stored)
            to_rows = first + gl.arange(0, 64, gl.SliceLayout(1, stored))
            columns = column * 128 + gl.arange(0, 128, gl.SliceLayout(0, stored))
            targets = output + to_rows[:, None].to(gl.int64) * n_columns + columns[None, :]
            gl.store(targets, values, (to_rows < end)[:, None] & (columns < n_columns)[None, :])


@gluon.jit
def _place(unit, n_tiles, column_tiles, GROUP: gl.constexpr):
    """The tile of rows and of columns that come `unit`-th: GROUP tiles of rows, then the next tile of columns.

    Programs that run at the same time so share rows and weights.
    """
    group = unit // (GROUP * column_tiles)
    in_group = gl.minimum(n_tiles - group * GROUP, GROUP)
    place = unit % (GROUP * column_tiles)
    return group * GROUP + place % in_group, place // in_group
