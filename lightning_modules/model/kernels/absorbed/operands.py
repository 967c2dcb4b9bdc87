"""What kernels of absorbed attention read and write."""

from typing import NamedTuple

from torch import Tensor

# Tokens of a tile.
TILE = 64
# Scores this low count nothing; infinity would make NaN of a tile that a query sees nothing of.
LOWEST = -1e30


class Operands(NamedTuple):
    """Of one layer, for T new tokens of each of B rows.

    Attributes:
        query_latent: [B, T, H, R] queries times W_UK, contiguous.
        query_rope: [B, T, H, P] their rotated parts, contiguous.
        latent: [B, S, R] the cache, the new tokens included; in FP8 with `latent_scale`.
        rope_key: [B, S, P] its rotated keys.
        latent_scale: FP32 [B, S, ⌈R / 128⌉], or None.
        lengths: [B] tokens that each row held before.
        scale: of scores whose exponentials are powers of two.
    """

    query_latent: Tensor
    query_rope: Tensor
    latent: Tensor
    rope_key: Tensor
    latent_scale: Tensor | None
    lengths: Tensor
    scale: float


class Pieces(NamedTuple):
    """What programs make of the pieces of rows that are theirs.

    Programs and rows follow each other in one order, so that their sum numbers the pieces.

    Attributes:
        contexts: FP32 [programs + B - 1, T · H, R] sums of latents by the exponentials of their scores.
        weights: FP32 [2, programs + B - 1, T · H] the scores' maxima, and the sums of the exponentials.
        n_programs: that share the tiles of all rows.
    """

    contexts: Tensor
    weights: Tensor
    n_programs: int
