"""Products in FP8 with one scale a row, or one a tensor, by torch's own: what torchao's recipes do to linear layers.

By row they are the reference of the kernels, and what takes their place where these are not; by tensor they are the
experts'. torch's grouped product takes groups of 16 rows or multiples thereof, where dropless routing gives any number,
and knows scales by row alone: one scale a tensor is repeated for every row. Experts' gradients are E4M3 in both
recipes, because that product has no other type; torchao's linear layers by tensor round gradients to E5M2.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_modules.precision.autocast import as_autocast
from lightning_modules.precision.emulation import E4M3, E4M3_MAX, grouped_product
from lightning_modules.precision.scaling import Scaling
from lightning_modules.precision.traced_constant import traced_constant

# torchao's, so that both parts of a model round alike.
SMALLEST_AMAX = 1e-12
# The scaled product wants every expert's part of the inner dimension in multiples of 16.
ALIGNMENT = 16


def scaled_linear(x: Tensor, weight: Tensor, scaling: Scaling) -> Tensor:
    """Map [M, K] by [N, K] to [M, N], all three products in FP8: a linear layer is a single expert."""
    end = torch.full((1,), x.shape[0], dtype=torch.int32, device=x.device)
    return _ScaledGroupedMM.apply(x, weight[None], end, scaling)


class ScaledGroupedMM:
    """Every expert's rows times its transposed weight, all three products in FP8 (`GroupedExperts.grouped_mm`)."""

    def __init__(self, scaling: Scaling) -> None:
        self.scaling = scaling

    def __call__(self, rows: Tensor, weight: Tensor, offsets: Tensor) -> Tensor:
        """Map `rows` [R, K] in order of experts by `weight` [E, N, K] to [R, N]; experts' rows end at `offsets` [E]."""
        return _ScaledGroupedMM.apply(as_autocast(rows), weight, offsets, self.scaling)


def runs_on_scaled_products(weight_shape: torch.Size, device: torch.device) -> bool:
    """Whether torch multiplies a weight [..., N, K] on `device` in real FP8: on Hopper or newer, by sides of 16."""
    return _has_scaled_products(device) and weight_shape[-2] % ALIGNMENT == 0 and weight_shape[-1] % ALIGNMENT == 0


@traced_constant
def _has_scaled_products(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (9, 0)


class _ScaledGroupedMM(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, offsets: Tensor, scaling: Scaling) -> Tensor:
        ctx.save_for_backward(rows, weight, offsets)
        ctx.scaling = scaling
        with torch.autocast(rows.device.type, enabled=False):
            return _multiply_rows(rows, weight, offsets, scaling)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        rows, weight, offsets = ctx.saved_tensors
        gradient = gradients[0]
        grad_rows = grad_weight = None
        with torch.autocast(gradient.device.type, enabled=False):
            if ctx.needs_input_grad[0]:
                grad_rows = _multiply_rows(gradient, weight.mT, offsets, ctx.scaling).to(rows.dtype)
            if ctx.needs_input_grad[1]:
                grad_weight = _multiply_weights(gradient, rows, offsets, ctx.scaling).to(weight.dtype)
        return grad_rows, grad_weight, None, None


def _multiply_rows(rows: Tensor, weight: Tensor, offsets: Tensor, scaling: Scaling) -> Tensor:
    """[R, K] by the transposes of [E, N, K] gives [R, N]."""
    row_factors = _factor(rows, scaling, dims=(-1,) if scaling is Scaling.ROWWISE else (0, 1)).expand(len(rows), 1)
    weight_factors = _factor(weight, scaling, dims=(-1,) if scaling is Scaling.ROWWISE else (-2, -1))
    weight_factors = weight_factors.expand(-1, weight.shape[1], 1)
    left, right = _round(rows, row_factors), _round(weight, weight_factors)
    if not runs_on_scaled_products(weight.shape, weight.device):
        product = grouped_product(left.float() / row_factors, (right.float() / weight_factors).mT, offsets)
        return product.to(rows.dtype)
    return _scaled_product(
        left.contiguous(),
        right.contiguous().mT,
        row_factors[:, 0].reciprocal().contiguous(),
        weight_factors[:, :, 0].reciprocal().contiguous(),
        offsets,
    ).to(rows.dtype)


def _multiply_weights(gradient: Tensor, rows: Tensor, offsets: Tensor, scaling: Scaling) -> Tensor:
    """The transpose of [R, N] by [R, K], expert by expert, gives [E, N, K]."""
    expert_of_row = torch.bucketize(torch.arange(len(rows), device=rows.device), offsets, right=True)
    expert_of_row = expert_of_row.clamp_max(len(offsets) - 1)
    left_factors = _column_factors(gradient, expert_of_row, len(offsets), scaling)
    right_factors = _column_factors(rows, expert_of_row, len(offsets), scaling)
    left, right = _round(gradient, left_factors[expert_of_row]), _round(rows, right_factors[expert_of_row])
    if not runs_on_scaled_products(torch.Size((gradient.shape[1], rows.shape[1])), rows.device):
        left_numbers = left.float() / left_factors[expert_of_row]
        right_numbers = right.float() / right_factors[expert_of_row]
        return grouped_product(left_numbers.mT, right_numbers, offsets)
    places, padded_offsets, n_padded = _padded_places(offsets, expert_of_row)
    return _scaled_product(
        _spread(left, places, n_padded).mT.contiguous(),
        _spread(right, places, n_padded).mT.contiguous().mT,
        left_factors.reciprocal().flatten(),
        right_factors.reciprocal().flatten(),
        padded_offsets,
    )


def _scaled_product(left: Tensor, right: Tensor, left_scales: Tensor, right_scales: Tensor, offsets: Tensor) -> Tensor:
    rowwise = F.ScalingType.RowWise
    return F.scaled_grouped_mm(  # type: ignore[attr-defined] # absent from torch's stubs
        left,
        right,
        scale_a=left_scales,
        scale_recipe_a=rowwise,
        scale_b=right_scales,
        scale_recipe_b=rowwise,
        offs=offsets,
        output_dtype=torch.bfloat16,
        use_fast_accum=True,
    )


def _factor(x: Tensor, scaling: Scaling, dims: tuple[int, ...]) -> Tensor:
    return _factor_of(x.float().abs().amax(dim=dims, keepdim=True), scaling)


def _column_factors(rows: Tensor, expert_of_row: Tensor, n_experts: int, scaling: Scaling) -> Tensor:
    """What each column of each expert's rows is multiplied by [E, K]."""
    if scaling is Scaling.TENSORWISE:
        return _factor(rows, scaling, dims=(0, 1)).expand(n_experts, rows.shape[1])
    amax = torch.zeros(n_experts, rows.shape[1], dtype=torch.float32, device=rows.device)
    amax = amax.scatter_reduce(0, expert_of_row[:, None].expand_as(rows), rows.float().abs(), "amax")
    return _factor_of(amax, scaling)


def _factor_of(amax: Tensor, scaling: Scaling) -> Tensor:
    """What brings `amax` to E4M3's largest number, or as near as a power of two does without passing it."""
    # As torchao computes it: a quotient in FP32 may differ in the last place.
    factor = (E4M3_MAX / amax.double().clamp_min(SMALLEST_AMAX)).float()
    return torch.exp2(torch.floor(torch.log2(factor))) if scaling is Scaling.ROWWISE else factor


def _round(x: Tensor, factors: Tensor) -> Tensor:
    return (x.float() * factors).clamp(-E4M3_MAX, E4M3_MAX).to(E4M3)


def _padded_places(offsets: Tensor, expert_of_row: Tensor) -> tuple[Tensor, Tensor, int]:
    """Where each row goes once every expert's rows are padded to a multiple of 16, where they then end, and how many.

    The number is an upper bound, so that no host has to wait for the routing.
    """
    counts = offsets.diff(prepend=offsets.new_zeros(1))
    padded_counts = (counts + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
    padded_ends = padded_counts.cumsum(0)
    moved_by = (padded_ends - padded_counts) - (offsets - counts)
    places = torch.arange(len(expert_of_row), device=offsets.device) + moved_by[expert_of_row]
    n_padded = -(-len(expert_of_row) // ALIGNMENT) * ALIGNMENT + len(offsets) * ALIGNMENT
    return places, padded_ends.to(torch.int32), n_padded


def _spread(rows: Tensor, places: Tensor, n_padded: int) -> Tensor:
    """`rows` at their `places` among zeros [n_padded, ...]; FP8 is moved as bytes, which is all index_copy can."""
    bytes_ = torch.zeros(n_padded, rows.shape[1], dtype=torch.uint8, device=rows.device)
    return bytes_.index_copy(0, places, rows.view(torch.uint8)).view(E4M3)
