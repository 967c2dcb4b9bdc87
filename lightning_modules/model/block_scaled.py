"""Weights kept in FP8, with one scale for every block of 128 × 128 of their numbers (arXiv 2412.19437, section 3.3.2).

A module's weight is then a parametrization: whoever asks for it is given it in BF16, as a checkpoint read as BF16 would
hold it, while kernels that know of blocks take the numbers and scales themselves.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lightning_modules.model.configuration import DecoderConfig

# The side of a block.
BLOCK = 128
# Columns that a program multiplies by at once, at most: they have one scale.
LARGEST_TILE = 16


class Matrix(NamedTuple):
    """A weight [..., C, K], and the FP32 scales [..., ⌈C / 128⌉, ⌈K / 128⌉] of its blocks where it is in FP8."""

    values: Tensor
    scales: Tensor | None = None


class BlockScales(nn.Module):
    """Turns FP8 numbers [..., C, K] into the BF16 ones that they stand for.

    Args:
        scales: FP32 [..., ⌈C / 128⌉, ⌈K / 128⌉].
    """

    def __init__(self, scales: Tensor) -> None:
        super().__init__()
        self.register_buffer("scales", scales)
        self.scales: Tensor

    def forward(self, values: Tensor) -> Tensor:
        """See the class."""
        return (values.float() * self.spread(values.shape)).bfloat16()

    def spread(self, shape: torch.Size) -> Tensor:
        """The scale of every number of a weight of this shape."""
        n_columns, depth = shape[-2:]
        by_column = self.scales.repeat_interleave(BLOCK, dim=-2)[..., :n_columns, :]
        return by_column.repeat_interleave(BLOCK, dim=-1)[..., :depth]


def keep_in_fp8(module: nn.Module, name: str, values: Tensor, scales: Tensor) -> None:
    """Let a module's parameter `name` be FP8 `values` with the `scales` of their blocks."""
    module.register_parameter(name, nn.Parameter(values, requires_grad=False))
    # Its type differs from that of the numbers it stands for, which is what "unsafe" allows.
    parametrize.register_parametrization(module, name, BlockScales(scales), unsafe=True)


def matrix_of(module: nn.Module, name: str = "weight") -> Matrix:
    """A module's parameter, in the type that it is kept in."""
    if not parametrize.is_parametrized(module, name):
        return Matrix(getattr(module, name))
    kept = getattr(module.parametrizations, name)
    return Matrix(kept.original.data, kept[0].scales)


def fits_blocks(config: DecoderConfig) -> bool:
    """Whether blocks end where heads and experts do, as far as kernels need it."""
    dims = (config.qk_nope_head_dim, config.qk_rope_head_dim, config.v_head_dim)
    are_widths_whole = all(size % BLOCK == 0 for size in config.segment_sizes)
    return are_widths_whole and all(dim % LARGEST_TILE == 0 for dim in dims)
