"""Attention of a few new tokens of each row over the latent cache, as decoding needs it.

W_UK is in the queries already, and W_UV is to follow (see `LatentAttention._attend_absorbed`): all heads attend to the
same latents, which are keys and values at once, so that each is read once. Suffixes as in `attention.py`.

What all rows hold is cut into tiles of tokens, and every program takes an equal share of all tiles, however long each
row is: a piece of one row, or pieces of several. The pieces of a row are merged afterwards. Where rows can hold little,
tiles are dealt out in another way (`absorbed/short.py`). Lengths are read on the GPU alone, and neither grids nor
memory depend on them.
"""

import math
from functools import cache

import torch
import triton
from torch import Tensor

from lightning_modules.model.kernels.absorbed import hopper, portable, short
from lightning_modules.model.kernels.absorbed.merging import merge
from lightning_modules.model.kernels.absorbed.operands import Operands, Pieces

# Tensor cores multiply by no fewer.
FEWEST_COLUMNS = 16


def attend_latent(
    query_latent: Tensor,
    query_rope: Tensor,
    latent: Tensor,
    rope_key: Tensor,
    lengths: Tensor,
    scale: float,
    latent_scale: Tensor | None = None,
) -> Tensor:
    """Contexts [B, T, H, R] of T new tokens a row, which are the last of the `lengths[b] + T` that row b holds.

    Args:
        query_latent: [B, T, H, R] queries times W_UK.
        query_rope: [B, T, H, P] their rotated parts.
        latent: [B, S, R] the cache of a layer, the new tokens included; in FP8 with `latent_scale`.
        rope_key: [B, S, P] its rotated keys.
        lengths: [B] tokens that each row held before, on the GPU.
        scale: of the scores.
        latent_scale: FP32 [B, S, ⌈R / 128⌉], as `quantise_tiles` makes them; None: the latents are not in FP8.
    """
    queries = query_latent.contiguous(), query_rope.contiguous()
    operands = Operands(*queries, latent, rope_key, latent_scale, lengths, scale * math.log2(math.e))
    if short.fits(operands):
        return short.attend(operands)
    n_rows, n_new, n_heads, rank = query_latent.shape
    n_columns = n_new * n_heads
    is_for_hopper = hopper.fits(operands)
    most_columns = hopper.most_columns(operands) if is_for_hopper else portable.MOST_COLUMNS
    columns = min(max(triton.next_power_of_2(n_columns), FEWEST_COLUMNS), most_columns)
    share = hopper.programs_of_multiprocessor(operands) if is_for_hopper else 1
    n_programs = max(share * _n_multiprocessors(latent.device) // triton.cdiv(n_columns, columns), 1)
    shape = (n_programs + n_rows - 1, n_columns)
    contexts = query_latent.new_empty(*shape, rank, dtype=torch.float32)
    pieces = Pieces(contexts, query_latent.new_empty(2, *shape, dtype=torch.float32), n_programs)
    (hopper if is_for_hopper else portable).attend(operands, pieces, columns)
    return merge(operands, pieces)


@cache
def _n_multiprocessors(device: torch.device) -> int:
    """As many programs run at once; under Triton's interpreter, a few."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 5
