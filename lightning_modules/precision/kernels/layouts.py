"""What FP8 kernels read and write, and the room for it.

Shapes: M rows of activations, K features in, N features out, R routed rows, E experts; ⌈a⌉ is ceil(a / 128). P rows are
stored: 128 · ⌈M⌉, or 128 · (⌊R / 128⌋ + E), which suffices for any division of R rows among E experts.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_modules.precision.emulation import BLOCK, E4M3
from lightning_modules.precision.scaling import Scaling


class BothLayouts(NamedTuple):
    """E4M3 numbers and the FP32 scales that give the originals back, for products over either side.

    Attributes:
        values: rows [P, K] in tiles of 1×128, or weights [(E,) N, K] in blocks of 128×128.
        scales: of rows [⌈K⌉, P], or [1, P] if these share one; of weights [(E,) ⌈N⌉, ⌈K⌉].
        transposed: rows [⌈P⌉, K, 128] in tiles of 128×1, or weights [(E,) K, N]: the same numbers as `values`. Tiles
            of experts' rows lie one behind the other, those of plain rows side by side, as the memory of [K, P].
        transposed_scales: of rows [⌈P⌉, K], or [1, K] if all share one, where they are experts' with K padded to a
            multiple of 256; of weights [(E,) ⌈K⌉, ⌈N⌉].
    """

    values: Tensor
    scales: Tensor
    transposed: Tensor
    transposed_scales: Tensor


class Copy(NamedTuple):
    """A weight as it is multiplied.

    Attributes:
        layouts: the numbers.
        scaling: by which they are rounded.
    """

    layouts: BothLayouts
    scaling: Scaling


class Plan(NamedTuple):
    """How routed rows are laid out in tiles of 128 (int32 all).

    Attributes:
        choices: [P] which choice of a token a row carries out; -1: none.
        places: [R] which row carries out a choice; -1: none.
        experts: [⌈P⌉] whose rows a tile holds; -1: nobody's.
        spans: [E, 3] an expert, its first tile and the one behind its last; those of most tiles come first.
    """

    choices: Tensor
    places: Tensor
    experts: Tensor
    spans: Tensor


def shares_whole_rows(scaling: Scaling, choices: Tensor | None) -> bool:
    """Whether rows that carry out `choices`, and columns, have one scale each, which products then need not apply.

    Scales of tiles that are powers of two do as well. Whole rows have to be looked at before they are rounded, which is
    repaid where each token is several experts'.
    """
    return scaling is Scaling.ROWWISE and choices is not None


def room_for_weight(shape: torch.Size, device: torch.device) -> BothLayouts:
    """What `quantise_weight` fills for a weight of this shape [(E,) N, K]."""
    *batch, n_rows, n_columns = shape
    return BothLayouts(
        torch.empty(shape, dtype=E4M3, device=device),
        torch.empty(*batch, n_blocks(n_rows), n_blocks(n_columns), device=device),
        torch.empty(*batch, n_columns, n_rows, dtype=E4M3, device=device),
        torch.empty(*batch, n_blocks(n_columns), n_blocks(n_rows), device=device),
    )


def halves_by_rows(weight: BothLayouts) -> tuple[BothLayouts, BothLayouts]:
    """The upper and the lower half of a weight [2N, K], for N a multiple of 128; both are parts of its memory."""
    along = (0, 0, 1, 1)
    upper, lower = zip(*(tensor.chunk(2, dim) for tensor, dim in zip(weight, along, strict=True)), strict=True)
    return BothLayouts(*upper), BothLayouts(*lower)


def room_for_plan(like: Tensor, n_choices: int, n_experts: int, room: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What a `Plan` of `n_choices` holds, with tiles for `room` of them."""
    n_tiles = room // BLOCK + n_experts
    sizes = ((n_tiles * BLOCK,), (n_choices,), (n_tiles,), (n_experts, 3))
    choices, places, experts, spans = (like.new_empty(size, dtype=torch.int32) for size in sizes)
    return choices, places, experts, spans


def room_for_tiles(like: Tensor, n_rows: int, n_columns: int) -> tuple[Tensor, Tensor]:
    """Values and scales of rows alone."""
    n_stored = BLOCK * n_blocks(n_rows)
    values = like.new_empty(n_stored, n_columns, dtype=E4M3)
    return values, like.new_empty(n_blocks(n_columns), n_stored, dtype=torch.float32)


def room_for_both(like: Tensor, n_rows: int, n_columns: int, is_routed: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What `BothLayouts` of rows hold; `is_routed`: those of experts."""
    n_tiles = n_blocks(n_rows)
    if is_routed:
        transposed = like.new_empty(n_tiles, n_columns, BLOCK, dtype=E4M3)
        n_scales = 2 * BLOCK * ((n_columns + 2 * BLOCK - 1) // (2 * BLOCK))
    else:
        transposed = like.new_empty(n_columns, n_tiles, BLOCK, dtype=E4M3).transpose(0, 1)
        n_scales = n_columns
    tiles = room_for_tiles(like, n_rows, n_columns)
    return *tiles, transposed, like.new_empty(n_tiles, n_scales, dtype=torch.float32)


def n_blocks(size: int) -> int:
    """⌈size⌉."""
    return (size + BLOCK - 1) // BLOCK
