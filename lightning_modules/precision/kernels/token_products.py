"""A Gluon kernel that multiplies E4M3 gradients by E4M3 activations of every expert, for products over tokens.

It is built as that of `row_products`: one warp loads, two groups of four warps multiply and promote. Both operands have
their tokens side by side, as the tensor cores want FP8, and a scale for every row and tile of tokens.
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
def multiply_tokens(
    gradient,  # descriptor of [token tiles · n_rows, 128] in blocks of 64×128
    rows,  # descriptor of [token tiles · n_columns, 128] in blocks of 128×128
    gradient_scales,  # [token tiles, n_rows], row-major; rows of scales are padded to multiples of 256; [1, ...] whole
    row_scales,  # descriptor of [token tiles, n_columns], padded alike, in blocks of 1×256; whole: a pointer
    spans,  # [n_experts, 3] int32: an expert, its first tile, and the one behind its last
    output,  # descriptor of [n_experts, n_rows, n_columns] in blocks of 1×64×128
    squares,  # [2 · programs, 64] FP32, which add up to the sum of the output's squares
    n_experts,
    n_tiles,
    n_rows,
    n_columns,
    STAGES: gl.constexpr,
    STAGED: gl.constexpr,
    WHOLE_GRADIENT: gl.constexpr,
    WHOLE_ROWS: gl.constexpr,
    num_warps: gl.constexpr,
):
    """Every expert's gradient by the transpose of its rows, summed over its own tokens, both in tiles along tokens.

    Where one has the same scale for all tokens (WHOLE_...), there is a factor less to each number of a product. STAGED
    blocks of a group's results are on their way out at a time.
    """
    left = gl.allocate_shared_memory(gradient.dtype, [2 * STAGES, 64, 128], gradient.layout)
    right = gl.allocate_shared_memory(rows.dtype, [2 * STAGES, 128, 128], rows.layout)
    empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    ready = gl.allocate_shared_memory(gl.int64, [2 * STAGES, 1], mbarrier.MBarrierLayout())
    for stage in gl.static_range(STAGES):
        mbarrier.init(empty.index(stage), count=2)
        mbarrier.init(ready.index(2 * stage), count=1)
        mbarrier.init(ready.index(2 * stage + 1), count=1)
    factors = row_scales
    if not WHOLE_ROWS:
        factors = gl.allocate_shared_memory(gl.float32, [STAGES, 1, 256], row_scales.layout)
    staged = gl.allocate_shared_memory(output.dtype, [2 * STAGED, 1, 64, 128], output.layout)
    sizes = (n_experts, n_tiles, n_rows, n_columns)
    shared = (left, right, empty, ready, factors)
    results = (output, staged, squares)
    gl.warp_specialize(
        [
            (
                _multiply,
                (gradient_scales, spans, results, sizes, shared, 0, STAGES, STAGED, WHOLE_GRADIENT, WHOLE_ROWS),
            ),
            (
                _multiply,
                (gradient_scales, spans, results, sizes, shared, 1, STAGES, STAGED, WHOLE_GRADIENT, WHOLE_ROWS),
            ),
            (_load, (gradient, rows, row_scales, spans, sizes, shared, STAGES, WHOLE_ROWS)),
        ],
        [4, 1],
        [240, 24],
    )


@gluon.jit
def _load(gradient, rows, row_scales, spans, sizes, shared, STAGES: gl.constexpr, WHOLE_ROWS: gl.constexpr):
    """Bring the operands of one output tile after the other into shared memory, as soon as there is room."""
    n_experts, n_tiles, n_rows, n_columns = sizes
    left, right, empty, ready, factors = shared
    n_units = n_experts * gl.cdiv(n_rows, 128) * gl.cdiv(n_columns, 256)
    stage = 0
    phase = 1
    for unit in range(gl.program_id(0), n_units, gl.num_programs(0)):
        _, first, end, row, column = _place(unit, spans, n_rows, n_columns)
        for tile in range(first, end):
            mbarrier.wait(empty.index(stage), phase)
            barrier = ready.index(2 * stage)
            if WHOLE_ROWS:
                mbarrier.expect(barrier, 2 * gradient.block_type.nbytes + rows.block_type.nbytes)
            else:
                mbarrier.expect(
                    barrier, 2 * gradient.block_type.nbytes + rows.block_type.nbytes + row_scales.block_type.nbytes
                )
                tma.async_copy_global_to_shared(row_scales, [tile, column], barrier, factors.index(stage))
            tma.async_copy_global_to_shared(gradient, [tile * n_rows + row, 0], barrier, left.index(2 * stage))
            tma.async_copy_global_to_shared(gradient, [tile * n_rows + row + 64, 0], barrier, left.index(2 * stage + 1))
            tma.async_copy_global_to_shared(rows, [tile * n_columns + column, 0], barrier, right.index(2 * stage))
            barrier = ready.index(2 * stage + 1)
            mbarrier.expect(barrier, rows.block_type.nbytes)
            tma.async_copy_global_to_shared(
                rows, [tile * n_columns + column + 128, 0], barrier, right.index(2 * stage + 1)
            )
            stage += 1
            if stage == STAGES:
                stage = 0
                phase ^= 1


@gluon.jit
def _multiply(
    gradient_scales,
    spans,
    results,
    sizes,
    shared,
    HALF: gl.constexpr,
    STAGES: gl.constexpr,
    STAGED: gl.constexpr,
    WHOLE_GRADIENT: gl.constexpr,
    WHOLE_ROWS: gl.constexpr,
):
    """Multiply, scale and add up the upper (HALF 0) or lower 64 rows of one output tile after the other."""
    n_experts, n_tiles, n_rows, n_columns = sizes
    left, right, empty, ready, factors = shared
    output, staged, squares = results
    layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 128, 32])
    n_units = n_experts * gl.cdiv(n_rows, 128) * gl.cdiv(n_columns, 256)
    row_stride = 0 if WHOLE_GRADIENT else gl.cdiv(n_rows, 256) * 256
    stage = 0
    phase = 0
    square = gl.zeros([64], gl.float32, gl.SliceLayout(1, layout))
    expert, first, end, row, column = _place(gl.minimum(gl.program_id(0), n_units - 1), spans, n_rows, n_columns)
    for unit in range(gl.program_id(0), n_units, gl.num_programs(0)):
        # Where the next tile lies is known by the time that this one is done.
        following = gl.minimum(unit + gl.num_programs(0), n_units - 1)
        next_expert, next_first, next_end, next_row, next_column = _place(following, spans, n_rows, n_columns)
        row += 64 * HALF
        of_rows = gradient_scales + row + gl.arange(0, 64, gl.SliceLayout(1, layout))
        upper = gl.zeros([64, 128], gl.float32, layout)
        lower = gl.zeros([64, 128], gl.float32, layout)
        nothing = gl.zeros([64, 128], gl.float32, layout)
        row_scale = gl.load(of_rows + gl.minimum(first, n_tiles - 1) * row_stride)
        for tile in range(first, end):
            operand = left.index(2 * stage + HALF)
            mbarrier.wait(ready.index(2 * stage), phase)
            transposed = right.index(2 * stage).permute((1, 0))
            product = warpgroup_mma(operand, transposed, nothing, use_acc=False, is_async=True)
            product = warpgroup_mma_wait(0, [product])
            upper += _scaled(product, row_scale, factors, stage, 0, WHOLE_GRADIENT, WHOLE_ROWS)
            # Waiting for the sum, too, has the compiler reuse the product's registers: there are none to spare.
            upper = warpgroup_mma_wait(0, [upper])
            mbarrier.wait(ready.index(2 * stage + 1), phase)
            transposed = right.index(2 * stage + 1).permute((1, 0))
            product = warpgroup_mma(operand, transposed, nothing, use_acc=False, is_async=True)
            next_scale = gl.load(of_rows + gl.minimum(tile + 1, end - 1) * row_stride)
            product = warpgroup_mma_wait(0, [product])
            product = _scaled(product, row_scale, factors, stage, 128, WHOLE_GRADIENT, WHOLE_ROWS)
            mbarrier.arrive(empty.index(stage), count=1)
            lower += product
            row_scale = next_scale
            lower = warpgroup_mma_wait(0, [lower])
            stage += 1
            if stage == STAGES:
                stage = 0
                phase ^= 1
        if WHOLE_GRADIENT:
            # Where nobody has rows, scales may be no numbers.
            row_scale = gl.where(end > first, row_scale, 0.0)[:, None]
            upper *= row_scale
            lower *= row_scale
        if WHOLE_ROWS:
            of_columns = factors + column + gl.arange(0, 128, gl.SliceLayout(0, layout))
            upper *= gl.where(end > first, gl.load(of_columns), 0.0)[None, :]
            lower *= gl.where(end > first, gl.load(of_columns + 128), 0.0)[None, :]
        square += _squares(upper, lower, row, column, n_rows, n_columns)
        _store(output, upper, [expert, row, column], staged.index(HALF * STAGED), STAGED)
        _store(output, lower, [expert, row, column + 128], staged.index(HALF * STAGED + STAGED - 1), STAGED)
        expert = next_expert
        first = next_first
        end = next_end
        row = next_row
        column = next_column
    places = (2 * gl.program_id(0) + HALF) * 64 + gl.arange(0, 64, gl.SliceLayout(1, layout))
    gl.store(squares + places, square)
    tma.store_wait(0)


@gluon.jit
def _scaled(
    product, row_scale, factors, stage, FIRST: gl.constexpr, WHOLE_GRADIENT: gl.constexpr, WHOLE_ROWS: gl.constexpr
):
    """A product of one tile, of 128 columns from FIRST on, by those scales that change from tile to tile.

    Rows come first: columns' factors arrive from shared memory meanwhile.
    """
    if not WHOLE_GRADIENT:
        product *= row_scale[:, None]
    if not WHOLE_ROWS:
        product *= factors.index(stage).slice(FIRST, 128, dim=1).load(product.type.layout)
    return product


@gluon.jit
def _squares(upper, lower, row, column, n_rows, n_columns):
    """The sums of squares [64] of rows of 64×256 values, as far as these lie within the matrix."""
    if (row + 64 <= n_rows) & (column + 256 <= n_columns):
        squares = gl.sum(upper * upper + lower * lower, 1)
    else:
        rows = row + gl.arange(0, 64, gl.SliceLayout(1, upper.type.layout))
        columns = column + gl.arange(0, 128, gl.SliceLayout(0, upper.type.layout))
        upper = gl.where((columns < n_columns)[None, :], upper, 0.0)
        lower = gl.where((columns + 128 < n_columns)[None, :], lower, 0.0)
        squares = gl.where(rows < n_rows, gl.sum(upper * upper + lower * lower, 1), 0.0)
    return squares


@gluon.jit
def _store(output, values, place, staged, STAGED: gl.constexpr):
    """Send 64×128 values to their place, through shared memory, once what went through it before has left."""
    tma.store_wait(STAGED - 1)
    flat: gl.constexpr = gl.NVMMASharedLayout(128, output.dtype.primitive_bitwidth, 2)
    staged._reinterpret(output.dtype, [64, 128], flat).store(values.to(output.dtype))
    fence_async_shared()
    tma.async_copy_shared_to_global(output, place, staged)


@gluon.jit
def _place(unit, spans, n_rows, n_columns):
    """Of the tile that comes `unit`-th the expert, where its tokens' tiles begin and end, its first row and column."""
    column_tiles = gl.cdiv(n_columns, 256)
    tiles = gl.cdiv(n_rows, 128) * column_tiles
    span = spans + unit // tiles * 3
    place = unit % tiles
    row, column = place // column_tiles * 128, place % column_tiles * 256
    return gl.load(span), gl.load(span + 1), gl.load(span + 2), row, column
