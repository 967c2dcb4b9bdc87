"""AdamW over many tensors in one launch, and the norm of many gradients.

A table says where every tensor lies: as a distance, in numbers, from a base tensor of its type. A kernel's pointer
arguments tell the compiler that they are aligned, where addresses read from memory would not.
"""

# Kernels are typed by what they are compiled for, and their compile-time constants are capitals.
# mypy: allow-untyped-defs
# ruff: noqa: N803

import triton
import triton.language as tl


@triton.jit
def _place(offsets, tensor, ALIGNMENT: tl.constexpr):
    return tl.multiple_of(tl.load(offsets + tensor), ALIGNMENT)


@triton.jit
def step(
    masters,
    working,
    gradients,
    means,
    squares,
    master_offsets,
    working_offsets,
    gradient_offsets,
    mean_offsets,
    square_offsets,
    sizes,
    decays,
    chunk_tensors,
    chunk_starts,
    scale,
    rate,
    beta1,
    beta2,
    epsilon,
    correction1,
    root_correction2,
    BLOCK: tl.constexpr,
    ALIGNMENT: tl.constexpr,
    SIZE_ALIGNMENT: tl.constexpr,
):
    """One step of FP32 masters, written to their working copies too; all arithmetic in FP32.

    A gradient counts `scale` times itself: the factor of clipping.
    """
    chunk = tl.program_id(0)
    tensor = tl.load(chunk_tensors + chunk)
    index = tl.load(chunk_starts + chunk).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = index < tl.multiple_of(tl.load(sizes + tensor), SIZE_ALIGNMENT)
    master_at = masters + _place(master_offsets, tensor, ALIGNMENT) + index
    mean_at = means + _place(mean_offsets, tensor, ALIGNMENT) + index
    square_at = squares + _place(square_offsets, tensor, ALIGNMENT) + index
    gradient = tl.load(gradients + _place(gradient_offsets, tensor, ALIGNMENT) + index, mask=inside, other=0.0)
    gradient = gradient.to(tl.float32) * tl.load(scale)
    weight = tl.load(master_at, mask=inside, other=0.0)
    mean = tl.load(mean_at, mask=inside, other=0.0).to(tl.float32)
    square = tl.load(square_at, mask=inside, other=0.0).to(tl.float32)
    mean += (1 - beta1) * (gradient - mean)
    square = beta2 * square + (1 - beta2) * gradient * gradient
    weight *= 1 - rate * tl.load(decays + tensor)
    weight -= rate / correction1 * mean / (tl.sqrt(square) / root_correction2 + epsilon)
    tl.store(master_at, weight, mask=inside)
    tl.store(mean_at, mean.to(means.dtype.element_ty), mask=inside)
    tl.store(square_at, square.to(squares.dtype.element_ty), mask=inside)
    working_at = working + _place(working_offsets, tensor, ALIGNMENT) + index
    tl.store(working_at, weight.to(working.dtype.element_ty), mask=inside)


@triton.jit
def sum_of_squares(
    gradients,
    gradient_offsets,
    sizes,
    chunk_tensors,
    chunk_starts,
    sums,
    BLOCK: tl.constexpr,
    ALIGNMENT: tl.constexpr,
    SIZE_ALIGNMENT: tl.constexpr,
):
    """Fill `sums` [chunks] with every chunk's sum of squares, in FP32."""
    chunk = tl.program_id(0)
    tensor = tl.load(chunk_tensors + chunk)
    index = tl.load(chunk_starts + chunk).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = index < tl.multiple_of(tl.load(sizes + tensor), SIZE_ALIGNMENT)
    gradient = tl.load(gradients + _place(gradient_offsets, tensor, ALIGNMENT) + index, mask=inside, other=0.0)
    gradient = gradient.to(tl.float32)
    tl.store(sums + chunk, tl.sum(gradient * gradient))
