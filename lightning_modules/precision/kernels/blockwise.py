"""Blockwise FP8 on Hopper: the functions of `precision.emulation` under the same names, on the tensor cores.

Each function is one operation of the library `melisma`, so that torch.compile leaves it alone and a recompute policy
can name it. They differ from the emulation only in how their results lie in memory:

- Whatever is quantised along rows (`quantise_128x1`, `quantise_grouped_128x1`) is stored transposed, for products over
  tokens want their tokens side by side. It comes in whole tiles: 128 rows of values a tile, zeros past the last row.
- Every FP8 operand of a product needs its inner side contiguous. `quantise_128x128` reads any strides and writes row by
  row: for `linear_grad_input`, quantise a weight's transpose and hand over the transpose of the result, or the product
  has to copy it.

Shapes: M rows of activations, K features in, N features out, R routed rows, E experts. ⌈a⌉ is ceil(a / 128).
"""

import importlib
import importlib.util
from functools import cache
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.functional import ScalingType

from lightning_modules.precision.emulation import BLOCK, E4M3, Quantised

# Operands travel to the tensor cores in lines whose length is a multiple of 16 bytes.
ALIGNMENT = 16


@torch.compiler.assume_constant_result
def available(device: torch.device | str) -> bool:
    """Whether `device` is a Hopper GPU (compute capability 9.0) on which Triton is installed."""
    return _is_hopper(torch.device(device))


@cache
def _is_hopper(device: torch.device) -> bool:
    if device.type != "cuda" or not torch.cuda.is_available() or torch.version.cuda is None:
        return False
    return torch.cuda.get_device_capability(device) == (9, 0) and importlib.util.find_spec("triton") is not None


def fits(out_features: int, in_features: int) -> bool:
    """Whether a weight of these sides can be multiplied here; others are left to the emulation."""
    return out_features % ALIGNMENT == 0 and in_features % ALIGNMENT == 0


def quantise_1x128(x: Tensor) -> Quantised:
    """Quantise `x` [M, K] in tiles of 128 along K; scales [M, ⌈K⌉]."""
    return Quantised(*torch.ops.melisma.quantise_1x128(x))


def quantise_128x1(x: Tensor) -> Quantised:
    """Quantise `x` [M, K] in tiles of 128 along M; values [128 · ⌈M⌉, K], scales [⌈M⌉, K]."""
    return Quantised(*torch.ops.melisma.quantise_128x1(x))


def quantise_128x128(weight: Tensor) -> Quantised:
    """Quantise `weight` [N, K] or [E, N, K] in square blocks; scales [(E,) ⌈N⌉, ⌈K⌉]."""
    return Quantised(*torch.ops.melisma.quantise_128x128(weight))


def quantise_grouped_128x1(rows: Tensor, offsets: Tensor) -> Quantised:
    """Quantise `rows` [R, K] in tiles of 128 rows that begin anew with each expert, so that none mixes two experts.

    Args:
        rows: routed rows in order of experts.
        offsets: [E] int32, where each expert's rows end; an expert may have none.

    Returns:
        For T = ⌊R / 128⌋ + E tiles, which always suffice: values [128 · T, K] and scales [T, K], expert after expert,
        ceil(rows / 128) tiles each. Tiles beyond the last in use hold zeros, and their scales are one.
    """
    return Quantised(*torch.ops.melisma.quantise_grouped_128x1(rows, offsets))


def linear_forward(x: Quantised, weight: Quantised, output_dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """y = x · Wᵀ: [M, K] in 1×128 tiles by [N, K] in 128×128 blocks gives [M, N]."""
    return torch.ops.melisma.linear_forward(*x, *weight, output_dtype)


def linear_grad_input(gradient: Quantised, weight: Quantised, output_dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """dx = dy · W: [M, N] in 1×128 tiles by [N, K] in 128×128 blocks gives [M, K]."""
    return torch.ops.melisma.linear_grad_input(*gradient, *weight, output_dtype)


def linear_grad_weight(gradient: Quantised, x: Quantised, output_dtype: torch.dtype = torch.float32) -> Tensor:
    """dW = dyᵀ · x: [M, N] by [M, K], both from `quantise_128x1`, gives [N, K]."""
    return torch.ops.melisma.linear_grad_weight(*gradient, *x, output_dtype)


def grouped_forward(
    rows: Quantised, weight: Quantised, offsets: Tensor, output_dtype: torch.dtype = torch.bfloat16
) -> Tensor:
    """`linear_forward` of every expert over its own rows.

    Args:
        rows: [R, K] in 1×128 tiles, in order of experts.
        weight: [E, N, K] in 128×128 blocks.
        offsets: [E] int32, where each expert's rows end; an expert may have none. The last is R.
        output_dtype: of the result.

    Returns:
        [R, N].
    """
    return torch.ops.melisma.grouped_forward(*rows, *weight, offsets, output_dtype)


def grouped_grad_input(
    gradient: Quantised, weight: Quantised, offsets: Tensor, output_dtype: torch.dtype = torch.bfloat16
) -> Tensor:
    """`linear_grad_input` of every expert: [R, N] in 1×128 tiles by [E, N, K] in 128×128 blocks gives [R, K]."""
    return torch.ops.melisma.grouped_grad_input(*gradient, *weight, offsets, output_dtype)


def grouped_grad_weight(
    gradient: Quantised, rows: Quantised, offsets: Tensor, output_dtype: torch.dtype = torch.float32
) -> Tensor:
    """`linear_grad_weight` of every expert, zero for one without rows.

    `gradient`, of [R, N], and `rows`, of [R, K], come from `quantise_grouped_128x1`; the result is [E, N, K].
    """
    return torch.ops.melisma.grouped_grad_weight(*gradient, *rows, offsets, output_dtype)


@torch.library.custom_op("melisma::quantise_1x128", mutates_args=())
def _quantise_1x128(x: Tensor) -> tuple[Tensor, Tensor]:
    values, scales = _new_tiles(x, *x.shape)
    _launch().quantise_tiles(x, values, scales)
    return values, scales.mT


@_quantise_1x128.register_fake
def _(x: Tensor) -> tuple[Tensor, Tensor]:
    values, scales = _new_tiles(x, *x.shape)
    return values, scales.mT


@torch.library.custom_op("melisma::quantise_128x1", mutates_args=())
def _quantise_128x1(x: Tensor) -> tuple[Tensor, Tensor]:
    values, scales = _new_tiles(x, x.shape[1], BLOCK * _blocks(x.shape[0]))
    _launch().quantise_tiles(x.mT, values, scales)
    return values.mT, scales


@_quantise_128x1.register_fake
def _(x: Tensor) -> tuple[Tensor, Tensor]:
    values, scales = _new_tiles(x, x.shape[1], BLOCK * _blocks(x.shape[0]))
    return values.mT, scales


@torch.library.custom_op("melisma::quantise_128x128", mutates_args=())
def _quantise_128x128(weight: Tensor) -> tuple[Tensor, Tensor]:
    values, scales = _new_blocks(weight)
    _launch().quantise_blocks(weight, values, scales)
    return values, scales


@_quantise_128x128.register_fake
def _(weight: Tensor) -> tuple[Tensor, Tensor]:
    return _new_blocks(weight)


@torch.library.custom_op("melisma::quantise_grouped_128x1", mutates_args=())
def _quantise_grouped_128x1(rows: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
    values, scales = _new_tiles(rows, rows.shape[1], BLOCK * _tiles(rows.shape[0], offsets.shape[0]))
    _launch().quantise_grouped_tiles(rows, offsets, values, scales)
    return values.mT, scales


@_quantise_grouped_128x1.register_fake
def _(rows: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
    values, scales = _new_tiles(rows, rows.shape[1], BLOCK * _tiles(rows.shape[0], offsets.shape[0]))
    return values.mT, scales


@torch.library.custom_op("melisma::linear_forward", mutates_args=())
def _linear_forward(
    x: Tensor, x_scales: Tensor, weight: Tensor, weight_scales: Tensor, output_dtype: torch.dtype
) -> Tensor:
    return _linear(x, x_scales, weight, weight_scales, output_dtype)


@_linear_forward.register_fake
def _(x: Tensor, x_scales: Tensor, weight: Tensor, weight_scales: Tensor, output_dtype: torch.dtype) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0], dtype=output_dtype)


@torch.library.custom_op("melisma::linear_grad_input", mutates_args=())
def _linear_grad_input(
    gradient: Tensor, gradient_scales: Tensor, weight: Tensor, weight_scales: Tensor, output_dtype: torch.dtype
) -> Tensor:
    return _linear(gradient, gradient_scales, weight.mT, weight_scales.mT, output_dtype)


@_linear_grad_input.register_fake
def _(
    gradient: Tensor, gradient_scales: Tensor, weight: Tensor, weight_scales: Tensor, output_dtype: torch.dtype
) -> Tensor:
    return gradient.new_empty(gradient.shape[0], weight.shape[1], dtype=output_dtype)


@torch.library.custom_op("melisma::linear_grad_weight", mutates_args=())
def _linear_grad_weight(
    gradient: Tensor, gradient_scales: Tensor, x: Tensor, x_scales: Tensor, output_dtype: torch.dtype
) -> Tensor:
    return F.scaled_mm(
        gradient.mT,
        x,
        gradient_scales.mT,
        ScalingType.BlockWise1x128,
        x_scales.mT,
        ScalingType.BlockWise1x128,
        output_dtype=output_dtype,
    )


@_linear_grad_weight.register_fake
def _(gradient: Tensor, gradient_scales: Tensor, x: Tensor, x_scales: Tensor, output_dtype: torch.dtype) -> Tensor:
    return gradient.new_empty(gradient.shape[1], x.shape[1], dtype=output_dtype)


@torch.library.custom_op("melisma::grouped_forward", mutates_args=())
def _grouped_forward(
    rows: Tensor, row_scales: Tensor, weight: Tensor, weight_scales: Tensor, offsets: Tensor, output_dtype: torch.dtype
) -> Tensor:
    output = rows.new_empty(rows.shape[0], weight.shape[1], dtype=output_dtype)
    _launch().multiply_rows(rows, row_scales, weight.contiguous(), weight_scales.contiguous(), offsets, output)
    return output


@_grouped_forward.register_fake
def _(
    rows: Tensor, row_scales: Tensor, weight: Tensor, weight_scales: Tensor, offsets: Tensor, output_dtype: torch.dtype
) -> Tensor:
    return rows.new_empty(rows.shape[0], weight.shape[1], dtype=output_dtype)


@torch.library.custom_op("melisma::grouped_grad_input", mutates_args=())
def _grouped_grad_input(
    gradient: Tensor,
    gradient_scales: Tensor,
    weight: Tensor,
    weight_scales: Tensor,
    offsets: Tensor,
    output_dtype: torch.dtype,
) -> Tensor:
    output = gradient.new_empty(gradient.shape[0], weight.shape[2], dtype=output_dtype)
    transposed, scales = weight.mT.contiguous(), weight_scales.mT.contiguous()
    _launch().multiply_rows(gradient, gradient_scales, transposed, scales, offsets, output)
    return output


@_grouped_grad_input.register_fake
def _(
    gradient: Tensor,
    gradient_scales: Tensor,
    weight: Tensor,
    weight_scales: Tensor,
    offsets: Tensor,
    output_dtype: torch.dtype,
) -> Tensor:
    return gradient.new_empty(gradient.shape[0], weight.shape[2], dtype=output_dtype)


@torch.library.custom_op("melisma::grouped_grad_weight", mutates_args=())
def _grouped_grad_weight(
    gradient: Tensor,
    gradient_scales: Tensor,
    rows: Tensor,
    row_scales: Tensor,
    offsets: Tensor,
    output_dtype: torch.dtype,
) -> Tensor:
    output = gradient.new_empty(offsets.shape[0], gradient.shape[1], rows.shape[1], dtype=output_dtype)
    _launch().multiply_tokens(gradient.mT, gradient_scales, rows.mT, row_scales, offsets, output)
    return output


@_grouped_grad_weight.register_fake
def _(
    gradient: Tensor,
    gradient_scales: Tensor,
    rows: Tensor,
    row_scales: Tensor,
    offsets: Tensor,
    output_dtype: torch.dtype,
) -> Tensor:
    return gradient.new_empty(offsets.shape[0], gradient.shape[1], rows.shape[1], dtype=output_dtype)


def _linear(x: Tensor, x_scales: Tensor, weight: Tensor, weight_scales: Tensor, output_dtype: torch.dtype) -> Tensor:
    """[M, K] in 1×128 tiles by the transpose of [N, K] in 128×128 blocks, by the kernel that takes the shape."""
    weight = weight.contiguous()
    if x.shape[0] % 4:  # cuBLAS reads four scales of an activation at once along M, and of a weight along K
        output = x.new_empty(x.shape[0], weight.shape[0], dtype=output_dtype)
        offsets = torch.full((1,), x.shape[0], dtype=torch.int32, device=x.device)
        _launch().multiply_rows(x, x_scales, weight[None], weight_scales[None].contiguous(), offsets, output)
        return output
    aligned = F.pad(weight_scales, (0, -weight_scales.shape[1] % 4)).contiguous()
    return F.scaled_mm(
        x,
        weight.mT,
        x_scales,
        ScalingType.BlockWise1x128,
        aligned.mT,
        ScalingType.BlockWise128x128,
        output_dtype=output_dtype,
    )


def _launch() -> ModuleType:
    """The launches, imported late: Triton need not be installed where this module is only imported."""
    return importlib.import_module("lightning_modules.precision.kernels.launch")


def _blocks(size: int) -> int:
    return (size + BLOCK - 1) // BLOCK


def _tiles(n_rows: int, n_experts: int) -> int:
    """As many tiles as any division of the rows among the experts can need."""
    return n_rows // BLOCK + n_experts


def _new_tiles(like: Tensor, n_rows: int, n_columns: int) -> tuple[Tensor, Tensor]:
    """Room for values [n_rows, n_columns] in tiles along columns, and for their scales [tiles, n_rows]."""
    values = like.new_empty(n_rows, n_columns, dtype=E4M3)
    return values, like.new_empty(_blocks(n_columns), n_rows, dtype=torch.float32)


def _new_blocks(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Room for the values and the scales of a weight in square blocks."""
    *batch, n_rows, n_columns = weight.shape
    values = weight.new_empty(weight.shape, dtype=E4M3)
    return values, weight.new_empty(*batch, _blocks(n_rows), _blocks(n_columns), dtype=torch.float32)
